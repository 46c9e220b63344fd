"""Logs in with Paho as a list of attempts says, which is JSON on standard input, and prints a line for each:
the code in the CONNACK, or -1 when none came."""
import json
import sys
import time

import paho.mqtt.client as mqtt

patience = 20


def login(a):
    args = {
        "client_id": a["id"], "protocol": {4: mqtt.MQTTv311, 5: mqtt.MQTTv5}[a["version"]],
        "transport": "websockets" if a["scheme"] in ("ws", "wss") else "tcp",
    }
    if hasattr(mqtt, "CallbackAPIVersion"):  # Paho 2
        args["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
    c = mqtt.Client(**args)
    if a["user"]:
        c.username_pw_set(a["user"], a["password"])
    if a["scheme"] in ("tls", "wss"):
        c.tls_set(a["ca"], certfile=a["cert"] or None, keyfile=a["key"] or None)
    codes = []
    c.on_connect = lambda client, userdata, flags, rc, properties=None: codes.append(getattr(rc, "value", rc))
    try:
        host, port = a["address"].rsplit(":", 1)
        c.connect(host, int(port))
        deadline = time.time() + patience
        while not codes and time.time() < deadline and c.loop(0.1) == mqtt.MQTT_ERR_SUCCESS:
            pass
        c.disconnect()
    except (OSError, mqtt.WebsocketConnectionError):  # not let in, or closed by now
        pass
    return codes[0] if codes else -1


for one in json.load(sys.stdin):
    print(login(one), flush=True)
