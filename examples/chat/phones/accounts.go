package main

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
)

func userName(i int) string      { return fmt.Sprintf("user%04d", i) }
func assistantName(i int) string { return fmt.Sprintf("assistant%02d", i) }

// accounts writes the files "passwords", with hashes as mosquitto_passwd makes them, and "acl".
func accounts(o *options, dir, acl string) error {
	access, err := os.ReadFile(acl)
	if err != nil {
		return err
	}
	var passwords bytes.Buffer
	names := []string{"pipeline"}
	for i := range o.users + 1 { // one more for wire
		names = append(names, userName(i))
	}
	for i := range o.assistants {
		name := assistantName(i)
		names = append(names, name)
		access = fmt.Appendf(access, "\nuser %s\ntopic write chat/staff/%s/+\ntopic read chat/presence/+/+\n", name, name)
	}
	for _, name := range names {
		const rounds = 101 // mosquitto_passwd's: a crowd that comes at once must not wait for hashes
		salt := make([]byte, 12)
		_, _ = rand.Read(salt) // never fails
		sum, err := pbkdf2.Key(sha512.New, name, salt, rounds, sha512.Size)
		if err != nil {
			return err
		}
		b64 := base64.StdEncoding.EncodeToString
		fmt.Fprintf(&passwords, "%s:$7$%d$%s$%s\n", name, rounds, b64(salt), b64(sum))
	}
	if err := os.WriteFile(filepath.Join(dir, "passwords"), passwords.Bytes(), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "acl"), access, 0o600)
}
