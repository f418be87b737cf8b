package vendor_test

import (
	"fmt"

	"maskrelay/upstream/vendor"
)

func ExampleNewLogins() {
	logins, err := vendor.NewLogins(vendor.LoginConfig{
		Login: "acme", Password: "secret",
		UsernameTemplate: "{login}{?country:-country-{country}{?city:-city-{city}}}{!country:-any}",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, wish := range []string{"", "country-US-city-New_York", "city-paris", "country-us-session-a1"} {
		params, fault := vendor.ParseParams(wish)
		if fault == nil {
			fault = logins.Fault(params)
		}
		if fault != nil {
			fmt.Println(fault)
			continue
		}
		fmt.Println(logins.Make("alice", params))
	}
	// Output:
	// acme-any secret
	// acme-country-us-city-new_york secret
	// The username parameter city needs the parameter country.
	// The username parameter session is not available.
}
