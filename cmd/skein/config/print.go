package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
)

// YAML is the whole configuration with comments, in a form that Load reads back to the same.
func (c *Config) YAML() []byte {
	var b bytes.Buffer
	b.WriteString("# Every key of a node, as it is in effect. Sources, the later wins: the defaults, the file\n" +
		"# (--config), the environment (mqtt.max_qos is SKEIN_MQTT_MAX_QOS), flags (--mqtt-max-qos,\n" +
		"# --set mqtt.max_qos=1).\n")
	write(&b, reflect.ValueOf(c).Elem(), "")
	return b.Bytes()
}

func write(b *bytes.Buffer, v reflect.Value, indent string) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if indent == "" {
			b.WriteByte('\n')
		}
		for line := range strings.SplitSeq(f.Tag.Get("doc"), "\n") {
			fmt.Fprintf(b, "%s# %s\n", indent, line)
		}
		if f.Type.Kind() == reflect.Struct {
			fmt.Fprintf(b, "%s%s:\n", indent, f.Tag.Get("key"))
			write(b, v.Field(i), indent+"  ")
			continue
		}
		fmt.Fprintf(b, "%s%s: %s\n", indent, f.Tag.Get("key"), format(v.Field(i)))
	}
}
