// Package dashboard is the page for operators: static files in a browser that ask the admin service by JSON over
// HTTP, and speak MQTT by WebSocket.
//
// It owns files and their headers. It must never know what the cluster is like: the page asks, with the rights of
// who looks at it. Nothing is fetched from elsewhere.
package dashboard

import (
	"embed"
	"io/fs"
	"net/http"

	"github.com/skein-mqtt/skein/proto/mqttjs"
)

//go:embed ui
var files embed.FS

// Handler serves the page at / and its files beside it.
func Handler() http.Handler {
	ui, err := fs.Sub(files, "ui")
	if err != nil {
		panic(err) // the folder is in the binary
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(ui))
	mux.Handle("GET /mqtt/", http.StripPrefix("/mqtt/", http.FileServerFS(mqttjs.Files)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		mux.ServeHTTP(w, r)
	})
}
