package listener

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
)

// names are the short ones that OpenSSL gives to the parts of a subject.
var names = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
	"2.5.4.9": "street", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.13": "description",
	"2.5.4.17": "postalCode", "2.5.4.42": "GN", "2.5.4.43": "initials", "2.5.4.46": "dnQualifier", "2.5.4.65": "pseudonym",
	"0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC", "1.2.840.113549.1.9.1": "emailAddress",
}

// subject writes a certificate's subject as Mosquitto does in use_subject_as_username: RFC 2253 with
// OpenSSL's names, so that password files and access lists stay as they are.
func subject(raw []byte) (string, error) {
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &rdns); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("%w: its certificate's subject can't be read", errRefused)
	}
	var b strings.Builder
	for i := len(rdns) - 1; i >= 0; i-- {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		for j := len(rdns[i]) - 1; j >= 0; j-- {
			a := rdns[i][j]
			name, known := names[a.Type.String()]
			text, isText := a.Value.(string)
			if known && isText {
				b.WriteString(name + "=" + escape(text))
			} else {
				der, err := asn1.Marshal(a.Value)
				if err != nil {
					return "", fmt.Errorf("%w: its certificate's subject can't be written: %w", errRefused, err)
				}
				b.WriteString(a.Type.String() + "=#" + strings.ToUpper(hex.EncodeToString(der)))
			}
			if j > 0 {
				b.WriteByte('+')
			}
		}
	}
	return b.String(), nil
}

// escape is RFC 2253, section 2.4; bytes beyond ASCII and control characters are escaped, too.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c < 0x20 || c >= 0x7F:
			fmt.Fprintf(&b, `\%02X`, c)
		case strings.IndexByte(`,+"\<>;`, c) >= 0, i == 0 && (c == '#' || c == ' '), i == len(s)-1 && c == ' ':
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
