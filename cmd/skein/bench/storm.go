package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// storm opens connections and, when they are to be idle, holds them.
func storm(ctx context.Context, cfg Config) (*Result, error) {
	s := &crowd{cfg: cfg, name: runName()}
	defer s.close()
	res := &Result{Mode: cfg.Mode, Version: versionName(cfg.Version), Persistent: cfg.Persistent}
	before, err := look(cfg.PIDs)
	if err != nil {
		return nil, err
	}
	openErr := s.open(ctx)
	after, err := look(cfg.PIDs)
	if err != nil {
		return nil, err
	}
	res.Connections, res.Failed, res.Latency = len(s.conns), s.failed, s.latencies.latency()
	if cfg.Mode == Connects {
		res.take(&after, &before, cfg.PIDs)
		res.PerSecond = float64(res.Connections) / res.Seconds
		return res, openErr
	}
	if len(s.conns) == 0 {
		return res, openErr
	}
	grown := before
	if err := s.hold(ctx, cfg.Warmup); err != nil {
		return res, err
	}
	if before, err = look(cfg.PIDs); err != nil {
		return nil, err
	}
	holdErr := s.hold(ctx, cfg.Duration)
	if after, err = look(cfg.PIDs); err != nil {
		return nil, err
	}
	res.take(&after, &before, cfg.PIDs)
	for i := range res.Processes { // memory since before there was any connection
		res.Processes[i].Grown = after.pids[i].rss - grown.pids[i].rss
	}
	return res, errors.Join(openErr, holdErr)
}

// crowd are connections without a goroutine each: nothing is read from them after CONNACK.
type crowd struct {
	cfg  Config
	name string

	mu        sync.Mutex
	conns     []net.Conn
	failed    int
	err       error // the first
	latencies histogram
}

// open opens all connections. Single failures are counted.
func (s *crowd) open(ctx context.Context) error {
	begin := time.Now()
	stopped := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { s.report(begin, stopped) })
	var next atomic.Int64
	_ = each(s.cfg.At, s.cfg.At, func(int) error {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= s.cfg.Clients {
				return nil
			}
			s.one(i)
		}
		return nil
	})
	close(stopped)
	group.Wait()
	if s.err != nil {
		return fmt.Errorf("bench: %d of %d connections failed; the first: %w", s.failed, s.cfg.Clients, s.err)
	}
	return ctx.Err()
}

func (s *crowd) one(i int) {
	cfg := &s.cfg
	begin := time.Now()
	nc, err := net.DialTimeout("tcp", cfg.SubAddrs[i%len(cfg.SubAddrs)], dialPatience)
	if err == nil {
		err = greet(nc, cfg, fmt.Sprintf("%s-%d", s.name, i))
	}
	took := time.Since(begin)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.conns = append(s.conns, nc)
		s.latencies.add(int64(took))
		return
	}
	if nc != nil {
		_ = nc.Close()
	}
	s.failed++
	if s.err == nil {
		s.err = err
	}
}

// greet sends CONNECT and reads CONNACK.
func greet(nc net.Conn, cfg *Config, id string) error {
	_ = nc.SetDeadline(time.Now().Add(stepPatience))
	if _, err := nc.Write(connect(cfg, id, cfg.Persistent).Append(nil, cfg.Version)); err != nil {
		return err
	}
	var b [512]byte
	for n := 0; n < len(b); {
		k, err := nc.Read(b[n:])
		if err != nil {
			return fmt.Errorf("no CONNACK: %w", err)
		}
		n += k
		first, body, size, err := mqtt.Split(b[:n], 0)
		if err != nil {
			return err
		}
		if size == 0 {
			continue
		}
		var p mqtt.Connack
		if err := p.Decode(cfg.Version, first, body); err != nil {
			return err
		}
		if p.Code != mqtt.Success {
			return fmt.Errorf("the broker refuses the connection: %s", p.Code)
		}
		return nc.SetDeadline(time.Time{})
	}
	return errors.New("CONNACK is longer than expected")
}

func (s *crowd) report(begin time.Time, stopped <-chan struct{}) {
	if s.cfg.Progress <= 0 {
		return
	}
	tick := time.NewTicker(s.cfg.Progress)
	defer tick.Stop()
	for {
		select {
		case <-stopped:
			return
		case <-tick.C:
			s.mu.Lock()
			n := len(s.conns)
			s.mu.Unlock()
			fmt.Fprintf(s.cfg.Log, "%4.0f s: %d of %d connections\n", time.Since(begin).Seconds(), n, s.cfg.Clients)
		}
	}
}

// hold keeps the connections that long.
func (s *crowd) hold(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	ping := make(<-chan time.Time)
	if k := s.cfg.KeepAlive; k > 0 {
		tick := time.NewTicker(max(k/2, time.Second))
		defer tick.Stop()
		ping = tick.C
	}
	packet := (&mqtt.Pingreq{}).Append(nil, s.cfg.Version)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-ping:
			for _, nc := range s.conns { // their answers fit into the sockets' buffers for days
				if _, err := nc.Write(packet); err != nil {
					return fmt.Errorf("bench: an idle connection is broken: %w", err)
				}
			}
		}
	}
}

// close says goodbye to all, and removes sessions that would stay.
func (s *crowd) close() {
	bye := (&mqtt.Disconnect{}).Append(nil, s.cfg.Version)
	_ = each(len(s.conns), 50, func(i int) error {
		nc := s.conns[i]
		_, _ = nc.Write(bye)
		_ = nc.(*net.TCPConn).CloseWrite()
		_ = nc.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, nc)
		return nc.Close()
	})
	if !s.cfg.Persistent {
		return
	}
	clean := s.cfg
	clean.Persistent = false
	_ = each(s.cfg.Clients, 50, func(i int) error {
		nc, err := net.DialTimeout("tcp", clean.SubAddrs[i%len(clean.SubAddrs)], dialPatience)
		if err != nil {
			return err
		}
		defer func() { _ = nc.Close() }()
		if err := greet(nc, &clean, fmt.Sprintf("%s-%d", s.name, i)); err != nil {
			return err
		}
		_, err = nc.Write(bye)
		return err
	})
}
