package main

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"maskrelay/upstream"
)

func TestGatewayNews(t *testing.T) {
	for _, c := range []struct {
		event upstream.Event
		want  string
	}{
		{upstream.Event{Gateway: "oxy", Kind: upstream.EventDown, Cause: upstream.CauseAuth, Advice: "check it", Err: errors.New("407")},
			`{"level":"warn","upstream":"oxy","event":"down","advice":"check it","cause":"auth","error":"407","message":"a gateway is out of use"}`},
		{upstream.Event{Gateway: "oxy", Kind: upstream.EventUp, For: 90 * time.Second},
			`{"level":"info","upstream":"oxy","event":"up","for_ms":90000,"message":"a gateway is in use again"}`},
		{upstream.Event{Gateway: "oxy", Kind: upstream.EventTrouble, Cause: upstream.CauseQuota},
			`{"level":"warn","upstream":"oxy","event":"trouble","cause":"quota","message":"a gateway refuses exchanges"}`},
		{upstream.Event{Gateway: "oxy", Kind: upstream.EventTroubleOver, Cause: upstream.CauseQuota, For: time.Second},
			`{"level":"info","upstream":"oxy","event":"trouble_over","cause":"quota","for_ms":1000,"message":"a gateway serves again"}`},
	} {
		t.Run(string(c.event.Kind), func(t *testing.T) {
			var out bytes.Buffer
			gatewayNews(zerolog.New(&out))(c.event)
			if got := out.String(); got != c.want+"\n" {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
