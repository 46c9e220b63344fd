package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestStanzas: what is counted is XML. A stream's header is closed at the stream's end, so it is here.
func TestStanzas(t *testing.T) {
	for what, stanzas := range xmppCosts {
		for _, s := range stanzas {
			if strings.Contains(s, "<stream:stream") {
				s += "</stream:stream>"
			}
			d := xml.NewDecoder(strings.NewReader(s))
			elements := 0
			for {
				token, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%s: %q: %v", what, s, err)
				}
				if _, ok := token.(xml.StartElement); ok {
					elements++
				}
			}
			if elements == 0 {
				t.Errorf("%s: %q holds no element", what, s)
			}
		}
		if xmppBytes(what) == 0 {
			t.Errorf("%s costs nothing", what)
		}
	}
}
