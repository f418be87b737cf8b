//go:build linux

package main

import (
	"slices"
)

// results are the samples of each peer's metrics by round.
type results map[string]map[string]map[int]float64

func (r results) add(peer, metric string, round int, value float64) {
	if r[peer] == nil {
		r[peer] = map[string]map[int]float64{}
	}
	if r[peer][metric] == nil {
		r[peer][metric] = map[int]float64{}
	}
	r[peer][metric][round] = value
}

// median returns the median over the rounds, and false when there is no sample.
func (r results) median(peer, metric string) (float64, bool) {
	var list []float64
	for _, v := range r[peer][metric] {
		list = append(list, v)
	}
	return median(list)
}

// ratio returns the median over the rounds of what peer has in times of what other has in the same round. That is steadier than the ratio of
// medians when other work on the machine comes and goes.
func (r results) ratio(peer, other, metric string) (float64, bool) {
	var list []float64
	for round, v := range r[peer][metric] {
		if base := r[other][metric][round]; base > 0 {
			list = append(list, v/base)
		}
	}
	return median(list)
}

// median sorts list.
func median(list []float64) (float64, bool) {
	if len(list) == 0 {
		return 0, false
	}
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2, true
}
