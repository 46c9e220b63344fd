package certname

import (
	"crypto/x509"
	"errors"
	"net/url"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	for _, n := range []Name{
		Node("skein", "node1"), Node("a b/c", "n%/ö:1"), Operator("skein", "ann", "admin"), Operator("s", "node", "view"),
	} {
		u, err := url.Parse(n.URI().String())
		if err != nil {
			t.Fatal(err)
		}
		got, err := Of(&x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "x"}, u}})
		if err != nil || got != n {
			t.Errorf("%+v became %+v, %v", n, got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]error{
		"https://example.org": ErrNone, "skein:": ErrMalformed, "skein:a/node": ErrMalformed, "skein:a/node/": ErrMalformed,
		"skein:/node/x": ErrMalformed, "skein:a/node/x/y": ErrMalformed, "skein:a/operator/x": ErrMalformed, "skein:a/other/x": ErrMalformed,
		"skein://a/node/x": ErrMalformed, "skein:a/node/%zz": ErrMalformed,
	} {
		u, err := url.Parse(text)
		if err != nil {
			u = &url.URL{Scheme: "skein", Opaque: text[len("skein:"):]}
		}
		if n, err := Of(&x509.Certificate{URIs: []*url.URL{u}}); !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v", text, n, err)
		}
	}
	one := Node("a", "b").URI()
	if _, err := Of(&x509.Certificate{URIs: []*url.URL{one, one}}); !errors.Is(err, ErrMalformed) {
		t.Errorf("two names: %v", err)
	}
}
