package httpd

import (
	"bytes"
	"html/template"
	"net/http"
)

// Status is what the page shows.
type Status struct {
	Node    string
	Version string
	State   string
	Reason  string
	Nodes   []NodeStatus
	Missing []string // nodes that did not answer, with the reason
}

// NodeStatus is one line of the table.
type NodeStatus struct {
	ID, State, Role, Version, Address, HTTP string
	Clients                                 uint64
}

var page = template.Must(template.New("status").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Node}}: skein</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto }
th, td { text-align: left; padding: .4rem .8rem; border-bottom: 1px solid #8884 }
td.n, th.n { text-align: right }
</style></head><body>
<h1>{{.Node}}</h1>
<p>skein {{.Version}}, <strong>{{.State}}</strong>{{with .Reason}}: {{.}}{{end}}</p>
<table><thead><tr><th>Node</th><th>State</th><th>Role</th><th class="n">Clients</th><th>Version</th><th>MQTT</th><th>HTTP</th></tr></thead><tbody>
{{range .Nodes}}<tr><td>{{.ID}}</td><td>{{.State}}</td><td>{{.Role}}</td><td class="n">{{.Clients}}</td><td>{{.Version}}</td><td>{{.Address}}</td><td>{{.HTTP}}</td></tr>
{{end}}</tbody></table>
{{range .Missing}}<p>No answer from {{.}}</p>
{{end}}<p><a href="/metrics">metrics</a> · <a href="/readyz">readyz</a> · <a href="/livez">livez</a></p>
</body></html>
`))

func render(w http.ResponseWriter, s Status) {
	var b bytes.Buffer
	if err := page.Execute(&b, s); err != nil {
		plain(w, http.StatusInternalServerError, err.Error())
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_, _ = w.Write(b.Bytes()) // a reader that is gone is not our error
}
