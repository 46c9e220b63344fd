// Command web serves the chat's page: files, and where the broker is. It knows nobody and keeps nothing;
// who may do what is the broker's business, with which the page speaks by itself.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/skein-mqtt/skein/proto/mqttjs"
)

//go:embed page
var page embed.FS

// settings are what the page asks for first.
type settings struct {
	WebSocket  string   `json:"websocket,omitempty"` // URL of the broker; empty: the page's own host, Port
	Port       int      `json:"port"`
	Assistants []string `json:"assistants"`
	Keepalive  int      `json:"keepalive"` // s
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("web", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:8000", "address of the page")
	var s settings
	flags.StringVar(&s.WebSocket, "websocket", "", "URL of the broker, as in wss://chat.example/mqtt; empty: the page's own host")
	flags.IntVar(&s.Port, "port", 8083, "port of the broker where -websocket is empty")
	flags.IntVar(&s.Keepalive, "keepalive", 60, "seconds after which a page that has nothing to say shows that it is there")
	assistants := flags.String("assistants", "", "names of the assistants, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s.Assistants = strings.Split(*assistants, ",")
	handler, err := handler(s)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Printf("the page is at http://%s\n", l.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	ended := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer ended()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func handler(s settings) (http.Handler, error) {
	files, err := fs.Sub(page, "page")
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.Handle("GET /mqtt/", http.StripPrefix("/mqtt/", http.FileServerFS(mqttjs.Files)))
	mux.HandleFunc("GET /config.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(config) // a reader that is gone is not our error
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "+
			"connect-src 'self' ws: wss:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		mux.ServeHTTP(w, r)
	}), nil
}
