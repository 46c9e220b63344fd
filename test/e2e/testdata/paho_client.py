#!/usr/bin/env python3
"""Subscribes on one node and publishes on another with Eclipse Paho, and goes on elsewhere when the
subscriber's node dies.

usage: paho_client.py VERSION TRANSPORT COUNT SUBSCRIBER_PORT PUBLISHER_PORT NEXT_PORT

It says 'half' when half of the messages are acknowledged and the first have arrived, and goes on when
the subscriber has lost its connection; in the end it prints a line 'got QOS PAYLOAD' for each message,
in the order of arrival.
"""
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

version, transport, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
first, other, later = (int(p) for p in sys.argv[4:7])
protocol = {"3.1.1": mqtt.MQTTv311, "5.0": mqtt.MQTTv5}[version]
topic = "python/%s/%s" % (version, transport)
patience = 30


def say(*words):
    print(*words, flush=True)


def client(name):
    args = {"client_id": "python-%s-%s-%s" % (name, version, transport), "protocol": protocol, "transport": transport}
    if hasattr(mqtt, "CallbackAPIVersion"):  # Paho 2
        args["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
    if protocol == mqtt.MQTTv311:
        args["clean_session"] = False
    c = mqtt.Client(**args)
    c.reconnect_delay_set(min_delay=1, max_delay=1)
    return c


def connect(c, port):
    if protocol == mqtt.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        c.connect("127.0.0.1", port, clean_start=False, properties=properties)
    else:
        c.connect("127.0.0.1", port)


got, some, all_there = [], threading.Event(), threading.Event()
subscribed, lost, present = threading.Event(), threading.Event(), []


def on_connect(c, userdata, flags, reason, properties=None):
    present.append(flags["session present"])
    if len(present) == 1:
        c.subscribe([(topic + "/1", 1), (topic + "/2", 2)])


def on_message(c, userdata, message):
    got.append((message.qos, message.payload.decode()))
    some.set()
    if len(set(got)) == 2 * count:
        all_there.set()


sub = client("sub")
sub.on_connect = on_connect
sub.on_subscribe = lambda *args: subscribed.set()
sub.on_message = on_message
sub.on_disconnect = lambda *args: lost.set()
connect(sub, first)
sub.loop_start()
if not subscribed.wait(patience):
    sys.exit("no SUBACK")
# What reconnects, reconnects there.
sub._port = later

pub = client("pub")
connect(pub, other)
pub.loop_start()
for i in range(count):
    sent = [pub.publish("%s/%d" % (topic, qos), "%05d" % i, qos) for qos in (1, 2)]
    if i == count // 2:
        for s in sent:
            s.wait_for_publish()
        if not some.wait(patience):
            sys.exit("nothing arrives")
        say("half")
        if not lost.wait(patience):
            sys.exit("the connection is not lost")
for s in sent:
    s.wait_for_publish()
if not all_there.wait(patience):
    say("incomplete")
pub.disconnect()
sub.disconnect()
pub.loop_stop()
sub.loop_stop()
say("present", *present)
for qos, payload in got:
    say("got", qos, payload)
