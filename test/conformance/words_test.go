package conformance

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// words are a line of a transcript: what to do, arguments, and options. A quoted word stands for
// itself, NAME=VALUE is an option and may come again, and a bare word can be a flag.
type words struct {
	verb string
	args []word
	opts []option
}

type word struct {
	text   string
	quoted bool
}

type option struct{ key, value string }

// parse splits a line.
func parse(line string) (w words, err error) {
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimSpace(rest) {
		end, open := 0, false
		for ; end < len(rest) && (open || rest[end] != ' '); end++ {
			switch rest[end] {
			case '"':
				open = !open
			case '\\':
				end++
			}
		}
		if open || end > len(rest) {
			return w, fmt.Errorf("unbalanced quotes: %s", line)
		}
		token := rest[:end]
		rest = rest[end:]
		key, value, isOption := strings.Cut(token, "=")
		isOption = isOption && !strings.ContainsAny(key, `"{`)
		text := token
		if isOption {
			text = value
		}
		quoted := strings.HasPrefix(text, `"`)
		if quoted {
			if text, err = strconv.Unquote(text); err != nil {
				return w, fmt.Errorf("%s: %w", token, err)
			}
		}
		switch {
		case w.verb == "":
			w.verb = text
		case isOption:
			w.opts = append(w.opts, option{key, text})
		default:
			w.args = append(w.args, word{text, quoted})
		}
	}
	return w, nil
}

// value is an option's.
func (w words) value(key string) (string, bool) {
	for _, o := range w.opts {
		if o.key == key {
			return o.value, true
		}
	}
	return "", false
}

// number is a numeric option, or what it is without one.
func (w words) number(key string, without uint64) uint64 {
	v, ok := w.value(key)
	if !ok {
		return without
	}
	n, err := strconv.ParseUint(v, 0, 32)
	if err != nil {
		panic(fmt.Sprintf("%s=%s is no number", key, v))
	}
	return n
}

// flag takes a bare word out of the arguments.
func (w *words) flag(name string) bool {
	for i, a := range w.args {
		if !a.quoted && a.text == name {
			w.args = append(w.args[:i:i], w.args[i+1:]...)
			return true
		}
	}
	return false
}

// property is how one is written: its name before the = and how its value is read.
type property struct {
	name string
	id   byte
	kind byte // n: number, s: string, p: KEY:VALUE
}

// properties in the order in which they are sent and shown, user properties and all that come more
// than once in the order in which they are written.
var properties = []property{
	{"format", 0x01, 'n'},
	{"message-expiry", h.MessageExpiry, 'n'},
	{"content-type", 0x03, 's'},
	{"response", 0x08, 's'},
	{"correlation", 0x09, 's'},
	{"sub-id", h.SubscriptionID, 'n'},
	{"expiry", h.SessionExpiry, 'n'},
	{"assigned-id", h.AssignedID, 's'},
	{"server-keepalive", 0x13, 'n'},
	{"method", 0x15, 's'},
	{"data", 0x16, 's'},
	{"problem-info", 0x17, 'n'},
	{"delay", h.WillDelay, 'n'},
	{"response-info", 0x19, 'n'},
	{"response-information", 0x1A, 's'},
	{"server-reference", h.ServerReference, 's'},
	{"reason", h.ReasonString, 's'},
	{"receive-maximum", h.ReceiveMaximum, 'n'},
	{"alias-maximum", h.TopicAliasMax, 'n'},
	{"alias", h.TopicAlias, 'n'},
	{"maximum-qos", 0x24, 'n'},
	{"retain-available", 0x25, 'n'},
	{"user", h.UserProperty, 'p'},
	{"max-packet", h.MaxPacketSize, 'n'},
	{"wildcard-available", 0x28, 'n'},
	{"sub-id-available", 0x29, 'n'},
	{"shared-available", 0x2A, 'n'},
}

// props are those among the options whose names begin with prefix, in the order written.
func (w words) props(prefix string) (list []h.Property) {
	for _, o := range w.opts {
		key, ok := strings.CutPrefix(o.key, prefix)
		if !ok {
			continue
		}
		for _, p := range properties {
			if p.name != key {
				continue
			}
			v := h.Property{ID: p.id, Text: o.value}
			switch p.kind {
			case 'n':
				n, err := strconv.ParseUint(o.value, 0, 32)
				if err != nil {
					panic(fmt.Sprintf("%s=%s is no number", o.key, o.value))
				}
				v.Num = uint32(n)
			case 'p':
				v.Text, v.Value, _ = strings.Cut(o.value, ":")
			}
			list = append(list, v)
		}
	}
	return list
}

// rawBytes reads what raw and packet send: hexadecimal digits, quoted strings with their length in
// front, N*HH for repetition, and [ … ] for what has a variable length in front.
func rawBytes(args []word) ([]byte, error) {
	stack := [][]byte{nil}
	put := func(b ...byte) { stack[len(stack)-1] = append(stack[len(stack)-1], b...) }
	for _, a := range args {
		switch {
		case a.quoted:
			put(byte(len(a.text)>>8), byte(len(a.text)))
			put([]byte(a.text)...)
		case a.text == "[":
			stack = append(stack, nil)
		case a.text == "]" && len(stack) > 1:
			inner := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			put(variable(len(inner))...)
			put(inner...)
		default:
			count, digits, repeated := strings.Cut(a.text, "*")
			n := 1
			var err error
			if !repeated {
				digits = a.text
			} else if n, err = strconv.Atoi(count); err != nil {
				return nil, err
			}
			for range n {
				for at := 0; at < len(digits); at += 2 {
					v, err := strconv.ParseUint(digits[at:min(at+2, len(digits))], 16, 8)
					if err != nil {
						return nil, err
					}
					put(byte(v))
				}
			}
		}
	}
	if len(stack) != 1 {
		return nil, fmt.Errorf("brackets do not match")
	}
	return stack[0], nil
}

// variable is a variable byte integer.
func variable(n int) (b []byte) {
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}
