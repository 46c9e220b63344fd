// Package httpd is a node's HTTP server: health for load balancers, metrics for Prometheus,
// profiles when asked for, and a page for people.
//
// It owns paths, status codes and which role each path wants. It must never decide whether the node is ready, nor
// who an operator is: it asks.
package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/skein-mqtt/skein/node/operators"
)

// State is what a load balancer is told.
type State uint8

// The states.
const (
	// NotReady: no new clients and no old ones (503).
	NotReady State = iota
	// Ready: serves, or lost its lease so shortly ago that it may be back at once (200).
	Ready
	// Draining: no new clients, but the old ones stay until they are asked to leave (404, which
	// HAProxy's "http-check disable-on-404" reads that way).
	Draining
	// Cordoned: no new clients, and the old ones stay (404).
	Cordoned
)

// String is the word on the status page.
func (s State) String() string {
	switch s {
	case Ready:
		return "ready"
	case Draining:
		return "draining"
	case Cordoned:
		return "cordoned"
	}
	return "unready"
}

// Health tells whether the node may serve, and why not. It must not block.
type Health interface {
	Ready() (state State, reason string)
}

// Page fills the status page. It may take as long as a cluster-wide read.
type Page interface {
	Status(ctx context.Context) Status
}

// Config of the server.
type Config struct {
	Listen string
	Pprof  bool
	Health Health
	Page   Page
	// Dashboard takes the place of Page, and asks API for what it shows, which is at APIPaths. API itself says who may
	// call what.
	Dashboard, API http.Handler
	APIPaths       []string
	Gatherer       prometheus.Gatherer
	Logger         *slog.Logger

	Gate *operators.Gate // who may see more than health; nil: whoever comes by loopback
	Seal *operators.Seal // the TLS of the port; nil: plain HTTP
	// Metrics and Pages are what those may do at /metrics and elsewhere who show nothing.
	Metrics, Pages operators.Role

	local bool // only this host can reach it
}

// Server is the HTTP server of one node.
type Server struct {
	listener net.Listener
	server   *http.Server
	serving  sync.WaitGroup
}

// Open binds the address and starts to answer. Close ends it.
func Open(config Config) (*Server, error) {
	l, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("http.listen: %w", err)
	}
	logger := config.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		config.local = a.IP.IsLoopback() && config.Seal == nil
	}
	if config.Seal != nil {
		l = tls.NewListener(l, config.Seal.Config())
	}
	s := &Server{listener: l, server: &http.Server{
		Handler:           Handler(config),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}}
	s.serving.Go(func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("HTTP server ended", "error", err)
		}
	})
	return s, nil
}

// Addr is the bound address.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close lets requests under way end, for a second, and closes the rest.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		s.server.Close()
	}
	s.serving.Wait()
	return nil
}

// Handler serves the paths; Open puts it behind a listener.
func Handler(config Config) http.Handler {
	if config.Gate == nil {
		gate, err := operators.Open(operators.Config{LocalRole: operators.Admin})
		if err != nil {
			panic(err) // it reads no file
		}
		config.Gate, config.local = gate, true
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		state, reason := config.Health.Ready()
		switch state {
		case Ready:
			plain(w, http.StatusOK, withReason("ok", reason))
		case Draining, Cordoned:
			plain(w, http.StatusNotFound, withReason(state.String(), reason))
		default:
			plain(w, http.StatusServiceUnavailable, withReason("not ready", reason))
		}
	})
	if config.Gatherer != nil {
		mux.Handle("GET /metrics", config.guard(operators.View, config.Metrics, promhttp.HandlerFor(config.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})))
	}
	if config.Pprof {
		profile := func(pattern string, f http.HandlerFunc) {
			mux.Handle(pattern, config.guard(operators.Admin, operators.Nobody, f))
		}
		profile("GET /debug/pprof/", pprof.Index)
		profile("GET /debug/pprof/cmdline", pprof.Cmdline)
		profile("GET /debug/pprof/profile", pprof.Profile)
		profile("GET /debug/pprof/symbol", pprof.Symbol)
		profile("GET /debug/pprof/trace", pprof.Trace)
	}
	if config.API != nil {
		for _, path := range config.APIPaths {
			mux.Handle(path, config.guard(operators.Nobody, operators.Nobody, config.API))
		}
	}
	switch {
	case config.Dashboard != nil:
		mux.Handle("/", config.guard(operators.View, config.Pages, config.Dashboard))
	case config.Page != nil:
		mux.Handle("GET /{$}", config.guard(operators.View, config.Pages, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
			defer cancel()
			render(w, config.Page.Status(ctx))
		})))
	}
	return mux
}

// guard lets those through who have the role, or where it is no more than what everybody has.
func (config Config) guard(role, everybody operators.Role, next http.Handler) http.Handler {
	return config.Gate.Handler(role, everybody, config.local, next)
}

func withReason(word, reason string) string {
	if reason == "" {
		return word
	}
	return word + ": " + reason
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}
