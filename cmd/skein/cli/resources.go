package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// column of a table.
type column struct {
	head string
	wide bool // only with -o wide
	cell func(m proto.Message, now time.Time) string
}

func col[T proto.Message](head string, cell func(T) string) column {
	return column{head: head, cell: func(m proto.Message, _ time.Time) string { return cell(m.(T)) }}
}

func wide(c column) column {
	c.wide = true
	return c
}

func age[T proto.Message](head string, at func(T) int64) column {
	return column{head: head, cell: func(m proto.Message, now time.Time) string {
		ms := at(m.(T))
		if ms == 0 {
			return ""
		}
		return duration(now.Sub(time.UnixMilli(ms)))
	}}
}

func number[N uint32 | uint64](n N) string { return strconv.FormatUint(uint64(n), 10) }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func resources() []resource {
	return []resource{nodes(), clients(), sessions(), subscriptions(), routes(), shared(), retained(), settings(), users(), groups(), roles(), bans()}
}

func nodes() resource {
	type N = *adminpb.Node
	return resource{
		name: "nodes", paged: true, singular: "node", aliases: []string{"no"}, short: "List the members of the cluster",
		id: func(m proto.Message) string { return m.(N).Id },
		columns: []column{
			col("ID", N.GetId), col("STATE", N.GetState), col("ROLE", N.GetRole),
			col("CLIENTS", func(n N) string { return number(n.Clients) }),
			age("UPTIME", N.GetStarted), col("VERSION", N.GetVersion),
			wide(col("MQTT", N.GetMqttAddress)), wide(col("HTTP", N.GetHttpAddress)),
			wide(col("ADMIN", N.GetAdminAddress)), wide(col("PEER", N.GetPeerAddress)),
			wide(col("APPLIED", func(n N) string { return number(n.Applied) })),
			wide(col("INCARNATION", func(n N) string { return number(n.Incarnation) })),
			wide(col("REASON", N.GetReason)),
		},
		flags: func(*cobra.Command) func([]string) (fetch, error) {
			return func([]string) (fetch, error) {
				return func(ctx context.Context, c services, page *adminpb.Page, l *listing) (string, error) {
					res, err := c.ListNodes(ctx, &adminpb.ListNodesRequest{Page: page})
					if err != nil {
						return "", err
					}
					add(l, res.Nodes)
					l.miss(res.Missing)
					return res.NextToken, nil
				}, nil
			}
		},
	}
}

func clients() resource {
	type C = *adminpb.Client
	return resource{
		name: "clients", paged: true, singular: "client", short: "List connected clients",
		id: func(m proto.Message) string { return m.(C).Id },
		columns: []column{
			col("ID", C.GetId), col("NODE", C.GetNode), col("ADDRESS", C.GetAddress), col("USER", C.GetUsername),
			col("PROTOCOL", func(c C) string { return protocol(c.Protocol) }),
			col("PERSISTENT", func(c C) string { return yes(c.Persistent) }),
			col("SUBSCRIPTIONS", func(c C) string { return number(c.Subscriptions) }),
			col("INFLIGHT", func(c C) string { return number(c.Inflight) }),
			col("QUEUED", func(c C) string { return number(c.Queued) }),
			age("CONNECTED", C.GetConnected),
			wide(col("LISTENER", C.GetListener)),
			wide(col("KEEPALIVE", func(c C) string { return number(c.Keepalive) + "s" })),
			wide(col("IN", func(c C) string { return number(c.MessagesIn) })),
			wide(col("OUT", func(c C) string { return number(c.MessagesOut) })),
			wide(col("DROPPED", func(c C) string { return number(sum(c.Dropped)) })),
			wide(col("PARTIAL", func(c C) string { return yes(c.Partial) })),
		},
		flags: func(cmd *cobra.Command) func([]string) (fetch, error) {
			node := cmd.Flags().String("node", "", "only clients of this `NODE`")
			return func([]string) (fetch, error) {
				return func(ctx context.Context, c services, page *adminpb.Page, l *listing) (string, error) {
					res, err := c.ListClients(ctx, &adminpb.ListClientsRequest{Page: page, Node: *node})
					if err != nil {
						return "", err
					}
					add(l, res.Clients)
					l.miss(res.Missing)
					return res.NextToken, nil
				}, nil
			}
		},
	}
}

func sessions() resource {
	type S = *adminpb.Session
	return resource{
		name: "sessions", paged: true, singular: "session", short: "List persistent sessions, connected or not",
		id: func(m proto.Message) string { return m.(S).Id },
		columns: []column{
			col("ID", S.GetId), col("CONNECTED", func(s S) string { return yes(s.Connected) }), col("NODE", S.GetNode),
			col("SUBSCRIPTIONS", func(s S) string { return number(s.Subscriptions) }),
			col("QUEUED", func(s S) string { return number(s.Queued) }),
			col("EXPIRY", func(s S) string { return expiry(s.Expiry) }),
			{head: "EXPIRES-IN", cell: func(m proto.Message, now time.Time) string {
				if at := m.(S).Expires; at != 0 {
					return duration(time.UnixMilli(at).Sub(now))
				}
				return ""
			}},
			wide(col("BYTES", func(s S) string { return number(s.QueuedBytes) })),
			wide(col("USER", S.GetUsername)), wide(col("ADDRESS", S.GetAddress)),
			wide(col("PROTOCOL", func(s S) string { return protocol(s.Protocol) })),
			wide(col("WILL", func(s S) string { return yes(s.HasWill) })),
			wide(col("CURSOR", func(s S) string { return number(s.Cursor) })),
			wide(col("LAST", func(s S) string { return number(s.Last) })),
			wide(col("DROPPED", func(s S) string { return number(sum(s.Dropped)) })),
		},
		flags: func(cmd *cobra.Command) func([]string) (fetch, error) {
			node := cmd.Flags().String("node", "", "only sessions connected to this `NODE`")
			return func([]string) (fetch, error) {
				return func(ctx context.Context, c services, page *adminpb.Page, l *listing) (string, error) {
					res, err := c.ListSessions(ctx, &adminpb.ListSessionsRequest{Page: page, Node: *node})
					if err != nil {
						return "", err
					}
					add(l, res.Sessions)
					l.miss(res.Missing)
					return res.NextToken, nil
				}, nil
			}
		},
	}
}

func subscriptions() resource {
	type S = *adminpb.Subscription
	return resource{
		name: "subscriptions", paged: true, singular: "subscription", aliases: []string{"subs", "sub"}, short: "List subscriptions",
		id: func(m proto.Message) string { return m.(S).Client },
		columns: []column{
			col("CLIENT", S.GetClient), col("FILTER", S.GetFilter), col("GROUP", S.GetGroup),
			col("QOS", func(s S) string { return number(s.Qos) }), col("NODE", S.GetNode),
			col("PERSISTENT", func(s S) string { return yes(s.Persistent) }),
			wide(col("NO-LOCAL", func(s S) string { return yes(s.NoLocal) })),
			wide(col("AS-PUBLISHED", func(s S) string { return yes(s.RetainAsPublished) })),
			wide(col("RETAIN-HANDLING", func(s S) string { return number(s.RetainHandling) })),
			wide(col("SUBSCRIPTION-ID", func(s S) string { return number(s.Id) })),
		},
		flags: func(cmd *cobra.Command) func([]string) (fetch, error) {
			client := cmd.Flags().String("client", "", "only those of this client `ID`")
			topic := cmd.Flags().String("topic", "", "only those that match this `TOPIC`")
			return func(args []string) (fetch, error) {
				if len(args) == 1 && *client == "" {
					*client = args[0] // the server need not send the others
				}
				return func(ctx context.Context, c services, page *adminpb.Page, l *listing) (string, error) {
					res, err := c.ListSubscriptions(ctx, &adminpb.ListSubscriptionsRequest{Page: page, Client: *client, Topic: *topic})
					if err != nil {
						return "", err
					}
					add(l, res.Subscriptions)
					l.miss(res.Missing)
					return res.NextToken, nil
				}, nil
			}
		},
	}
}

func retained() resource {
	type R = *adminpb.Retained
	return resource{
		name: "retained", paged: true, singular: "retained", short: "List retained messages, those that match FILTER or all", server: true,
		id: func(m proto.Message) string { return m.(R).Topic },
		columns: []column{
			col("TOPIC", R.GetTopic), col("QOS", func(r R) string { return number(r.Qos) }),
			col("SIZE", func(r R) string { return number(r.Size) }),
			age("AGE", R.GetStored),
			col("PAYLOAD", func(r R) string { return readable(r.Payload, 40) }),
			wide(col("PUBLISHER", R.GetPublisher)),
			wide(column{head: "EXPIRES-IN", cell: func(m proto.Message, now time.Time) string {
				if at := m.(R).Expires; at != 0 {
					return duration(time.UnixMilli(at).Sub(now))
				}
				return ""
			}}),
		},
		flags: func(cmd *cobra.Command) func([]string) (fetch, error) {
			payload := cmd.Flags().Bool("payload", false, "whole payloads, not only their beginning (json, yaml)")
			return func(args []string) (fetch, error) {
				return func(ctx context.Context, c services, page *adminpb.Page, l *listing) (string, error) {
					res, err := c.ListRetained(ctx, &adminpb.ListRetainedRequest{Page: page, Filter: strings.Join(args, ""), Payload: *payload})
					if err != nil {
						return "", err
					}
					add(l, res.Retained)
					return res.NextToken, nil
				}, nil
			}
		},
	}
}

func add[T proto.Message](l *listing, items []T) {
	for _, m := range items {
		l.items = append(l.items, m)
	}
}

func sum(m map[string]uint64) uint64 {
	var n uint64
	for _, v := range m {
		n += v
	}
	return n
}

func protocol(level uint32) string {
	switch level {
	case 3:
		return "3.1"
	case 4:
		return "3.1.1"
	case 5:
		return "5.0"
	}
	return ""
}

func expiry(seconds uint32) string {
	if seconds == 1<<32-1 {
		return "never"
	}
	return duration(time.Duration(seconds) * time.Second)
}

// duration is two units at most: 45s, 3m12s, 5h2m, 9d3h.
func duration(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return trim(s/60, "m", s%60, "s")
	case s < 86400:
		return trim(s/3600, "h", s%3600/60, "m")
	}
	return trim(s/86400, "d", s%86400/3600, "h")
}

func trim(a int64, unit string, b int64, smaller string) string {
	if b == 0 {
		return fmt.Sprintf("%d%s", a, unit)
	}
	return fmt.Sprintf("%d%s%d%s", a, unit, b, smaller)
}

// readable keeps a stranger's bytes from moving the cursor of an operator's terminal.
func readable(b []byte, limit int) string {
	var s strings.Builder
	for n := 0; len(b) > 0; n++ {
		if n == limit {
			s.WriteString("…")
			break
		}
		r, size := utf8.DecodeRune(b)
		if (r == utf8.RuneError && size == 1) || !unicode.IsPrint(r) {
			fmt.Fprintf(&s, "\\x%02x", b[0])
			size = 1
		} else {
			s.WriteRune(r)
		}
		b = b[size:]
	}
	return s.String()
}
