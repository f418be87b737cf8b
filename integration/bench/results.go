//go:build linux

package main

import "slices"

// results are the samples of each peer's metrics, one a round.
type results map[string]map[string][]float64

func (r results) add(peer, metric string, value float64) {
	if r[peer] == nil {
		r[peer] = map[string][]float64{}
	}
	r[peer][metric] = append(r[peer][metric], value)
}

// median reports false when there is no sample.
func (r results) median(peer, metric string) (float64, bool) {
	list := slices.Sorted(slices.Values(r[peer][metric]))
	if len(list) == 0 {
		return 0, false
	}
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2, true
}
