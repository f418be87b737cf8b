package integration

import (
	"fmt"
	"os"
	"testing"

	"maskrelay/integration/lab"
)

func TestMain(m *testing.M) {
	if lab.RunRole() {
		return
	}
	// What customers and services know, and no relay's environment has.
	lab.Plant(customerPassword, vendorPassword, panelToken, hookSecret, redisPassword, operatorSecret, fleetPassword, laterPassword)
	code := m.Run()
	if err := lab.CleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}
