package run

import (
	"context"
	"net/http"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/node/admin"
	"github.com/skein-mqtt/skein/node/dashboard"
	"github.com/skein-mqtt/skein/node/httpd"
	"github.com/skein-mqtt/skein/node/operators"
)

// watched is what reads its files again: when they change, while Run goes on, and when it is told to.
type watched interface {
	Run(ctx context.Context)
	Reload()
}

// openServices opens what operators use. The admin service answers the other nodes in any case.
func (n *node) openServices() error {
	a, h := &n.cfg.Admin, &n.cfg.HTTP
	localRole, err := operators.ParseRole(a.LocalRole)
	if err != nil {
		return err
	}
	gate, err := operators.Open(operators.Config{Cluster: n.cfg.Cluster.Name, File: a.Operators, LocalRole: localRole, Logger: n.logger})
	if err != nil {
		return err
	}
	n.gate = gate
	n.watch(gate)
	path := a.AuditFile
	if path == "" {
		path = filepath.Join(n.cfg.Data.Dir, "audit.log")
	}
	if n.audit, err = operators.OpenAudit(path, n.id, n.logger); err != nil {
		return err
	}
	seal, err := n.seal("admin", a.Listen, a.Cert, a.Key, a.CA)
	if err != nil {
		return err
	}
	if n.admin, err = admin.Open(admin.Config{
		Self: n.id, Listen: a.Listen, Socket: a.Socket, Version: versionInfo(n.id), Logger: n.logger,
		Gate: gate, Seal: seal, Audit: n.audit, Nodes: n.cluster.Orders(), Dial: n.cluster.DialOrders,
		Events: n.events, Tracer: &n.tracer, Lines: n.lines, Folder: n.cfg.Data.Dir,
		Access: n.fsm, Rules: accessRules{n},
	}, state{n.fsm}, local{n}, orders{n}); err != nil {
		return err
	}
	if h.Listen == "" {
		return nil
	}
	if seal, err = n.seal("http", h.Listen, h.Cert, h.Key, h.CA); err != nil {
		return err
	}
	metrics, pages := operators.Nobody, operators.Nobody
	switch h.Anonymous {
	case "metrics":
		metrics = operators.View
	case "view":
		metrics, pages = operators.View, operators.View
	}
	local := seal == nil && config.Loopback(h.Listen)
	n.http, err = httpd.Open(httpd.Config{
		Listen: h.Listen, Pprof: h.Pprof, Health: n.health, Page: page{n}, Gatherer: n.registry(), Logger: n.logger,
		Gate: gate, Seal: seal, Metrics: metrics, Pages: pages,
		Dashboard: dashboard.Handler(), APIPaths: []string{admin.GatewayPath, admin.AccessPath},
		API: n.admin.Gateway(func(r *http.Request, method string, req proto.Message) (func(error), error) {
			c := operators.Request(r, local)
			c.Least = pages
			return n.admin.Authorize(c, method, req)
		}),
	})
	return err
}

// seal is the TLS of a port; nil without a certificate.
func (n *node) seal(section, listen, cert, key, ca string) (*operators.Seal, error) {
	if listen == "" || cert == "" {
		return nil, nil
	}
	s, err := operators.OpenSeal(section, cert, key, ca, n.logger)
	if err != nil {
		return nil, err
	}
	n.watch(s)
	return s, nil
}

// watch has w read its files again when they change, and at SIGHUP.
func (n *node) watch(w watched) { n.watching = append(n.watching, w) }
