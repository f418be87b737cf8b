package account

import "golang.org/x/crypto/bcrypt"

// KeepHash returns a with the hash that was has, if a's password is the plain text of
// it, and else a itself. A store that writes the outcome knows that the password did
// not change, and nobody's connections need end for a new hash of the same. It takes as
// long as [Hash]. was may be nil.
func (a *Account) KeepHash(was *Account) *Account {
	if was == nil || was.password == nil || !was.password.bcrypt ||
		a.password == nil || a.password.bcrypt || len(*a.password.text) > maxBcrypt ||
		bcrypt.CompareHashAndPassword([]byte(*was.password.text), []byte(*a.password.text)) != nil {
		return a
	}
	return a.WithPasswordOf(was)
}

// WithPasswordOf returns a copy of a with the password of was, which may have none.
func (a *Account) WithPasswordOf(was *Account) *Account {
	kept := *a
	kept.password = was.password
	return &kept
}
