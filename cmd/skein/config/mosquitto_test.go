package config

import (
	"compress/gzip"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/skein-mqtt/skein/node/listener"
)

// others are the options of mosquitto.conf(5) that have nothing to do with who gets in, what he may do and what it costs.
var others = strings.Fields(`address addresses allow_duplicate_messages autosave_interval autosave_on_changes
	bridge_attempt_unsubscribe bridge_bind_address bridge_max_packet_size bridge_outgoing_retain bridge_protocol_version cleansession
	clientid connection connection_messages idle_timeout include_dir keepalive_interval local_cleansession local_clientid log_dest
	log_facility log_timestamp log_timestamp_format log_type max_inflight_bytes notification_topic notifications
	notifications_local_only persistence persistence_file persistence_location pid_file queue_qos0_messages remote_clientid
	restart_timeout round_robin set_tcp_nodelay start_type store_clean_interval sys_interval threshold topic try_private
	upgrade_outgoing_qos websockets_log_level mosquitto mosquitto.conf`)

// TestMosquittoTable: the table of options names all that the manual page of this machine's Mosquitto has, and no key or
// setting of ours that there is not.
func TestMosquittoTable(t *testing.T) {
	data, err := os.ReadFile("../../../docs/mosquitto-security.md")
	if err != nil {
		t.Fatal(err)
	}
	table := string(data)
	for _, name := range regexp.MustCompile("`((?:mqtt|auth|cluster|admin|http)\\.[a-z0-9_]+)`").FindAllStringSubmatch(table, -1) {
		if _, ok := lookup(name[1]); !ok {
			t.Errorf("the table names %s, and there is no such key", name[1])
		}
	}
	for _, row := range regexp.MustCompile("settings? (`[a-z_]+`(?:, `[a-z_]+`)*) \\|").FindAllStringSubmatch(table, -1) {
		for _, name := range regexp.MustCompile("[a-z_]+").FindAllString(row[1], -1) {
			known := false
			for _, scheme := range schemes {
				url := scheme + "://:1?" + name + "=x"
				if scheme == "unix" {
					url = "unix:///x?" + name + "=x"
				}
				_, err := listener.Parse(url)
				known = known || err == nil || !strings.Contains(err.Error(), "unknown setting "+name)
			}
			if !known {
				t.Errorf("the table names the setting %s, and no listener has it", name)
			}
		}
	}
	file, err := os.Open("/usr/share/man/man5/mosquitto.conf.5.gz")
	if err != nil {
		t.Skip("this machine has no manual page of Mosquitto")
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	options := regexp.MustCompile(`(?m)^\.PP\n\\fB([a-z][a-z0-9_.]+)`).FindAllStringSubmatch(strings.ReplaceAll(string(page), `\&`, ""), -1)
	if len(options) < 80 {
		t.Fatalf("only %d options were found in the manual page", len(options))
	}
	for _, o := range options {
		known := strings.Contains(table, "`"+o[1]+"`") || strings.Contains(table, "`"+o[1]+"*`")
		for _, name := range others {
			known = known || name == o[1]
		}
		if !known {
			t.Errorf("the table does not name %s", o[1])
		}
	}
}
