package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"maskrelay/integration/lab"
)

// stuffedNames are accounts whose names are known to those who guess passwords.
const stuffedNames = 50

// TestCredentialStuffing guesses as fast as it goes: at many names from one address; at many names, at one and at unknown ones from many addresses; where passwords are kept as plain text and where each guess costs a bcrypt.
func TestCredentialStuffing(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("stuffed-password"), 10)
	if err != nil {
		t.Fatal(err)
	}
	for kind, password := range map[string]string{"plain": "stuffed-password", "bcrypt": string(hash)} {
		var accounts strings.Builder
		accounts.WriteString(abuseAccounts)
		for i := range stuffedNames {
			fmt.Fprintf(&accounts, "  - name: stuffed%d\n    password: %s\n", i, password)
		}
		file := writeFile(t, t.TempDir(), "accounts.yaml", accounts.String())
		t.Run(kind, func(t *testing.T) {
			s := startScene(t, lab.Env{"ACCOUNTS_FILE": file, "PROXY_PROTOCOL_FROM": "127.0.0.0/8"}, calmHeader)
			for _, tc := range []struct {
				name string
				from func(i int) int
				who  func(i int) string
			}{
				{"from one address", func(int) int { return 1 }, func(i int) string { return fmt.Sprintf("stuffed%d", i%stuffedNames) }},
				{"from many addresses", func(i int) int { return 1<<18 + i }, func(i int) string {
					return []string{fmt.Sprintf("stuffed%d", i%stuffedNames), "stuffed1", fmt.Sprintf("nobody%d", i)}[i%3]
				}},
			} {
				t.Run(tc.name, func(t *testing.T) {
					s.endure(t, func(m *mob) {
						m.work(mobWorkers, func(int) {
							i := int(m.opened.Load())
							m.ask(s.relay.Addr, "", fmt.Sprintf("PROXY TCP4 %s 10.4.5.6 1000 8080\r\nCONNECT shop.target.example:443 HTTP/1.1\r\nHost: shop.target.example:443\r\n%s%s\r\n\r\n",
								clientNumber(tc.from(i)), rogueLogin, basic(tc.who(i), fmt.Sprint("guess", i))))
						})
						m.waitAnswers(20)
						if right, other := m.answers(http.StatusProxyAuthRequired, http.StatusTooManyRequests, http.StatusServiceUnavailable, 0); other > 0 || right == 0 {
							t.Errorf("%v; want 407, 429 or 503", m)
						}
					})
				})
			}
		})
	}
}
