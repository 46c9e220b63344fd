// Package mqttjs is an MQTT 5 client for browsers, in plain JavaScript modules that need no build: what
// the pages of this project speak with. index.js says how it is used.
//
// It owns the files alone, for whoever serves them. It must never hold anything of a page.
package mqttjs

import "embed"

// Files are index.js and what it imports, to be served in one folder as text/javascript.
//
//go:embed *.js
var Files embed.FS
