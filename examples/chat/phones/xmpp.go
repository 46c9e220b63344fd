package main

// What the same things cost in XMPP: the stanzas that a client with the usual extensions exchanges with its
// server, as the XEPs write them. Their sizes are counted, not measured: bytes of XML, before TLS and TCP, as the bytes
// of MQTT are. Compression of streams is left out on both sides.

const (
	xmppText = "Could you look up order 48213 for me, please?"

	xmppSend = `<message to='assistant00@chat.example' id='5f0c2a71-8f55-4a3b-9d0e-2b7c8b1f6e11' type='chat'>` +
		`<body>` + xmppText + `</body><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>` +
		`<origin-id xmlns='urn:xmpp:sid:0' id='5f0c2a71-8f55-4a3b-9d0e-2b7c8b1f6e11'/><active xmlns='http://jabber.org/protocol/chatstates'/></message>`
	xmppReceive = `<message from='assistant00@chat.example/desk' to='user0000@chat.example/phone' id='5f0c2a71-8f55-4a3b-9d0e-2b7c8b1f6e11' type='chat'>` +
		`<body>` + xmppText + `</body><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>` +
		`<origin-id xmlns='urn:xmpp:sid:0' id='5f0c2a71-8f55-4a3b-9d0e-2b7c8b1f6e11'/>` +
		`<stanza-id xmlns='urn:xmpp:sid:0' id='1795714200692-17' by='user0000@chat.example'/><active xmlns='http://jabber.org/protocol/chatstates'/></message>`
	xmppReceipt = `<message to='assistant00@chat.example/desk' id='b7d1' type='chat'><received xmlns='urn:xmpp:receipts' id='5f0c2a71-8f55-4a3b-9d0e-2b7c8b1f6e11'/></message>`
	xmppMarker  = `<message to='assistant00@chat.example/desk' id='b7d2' type='chat'><displayed xmlns='urn:xmpp:chat-markers:0' id='5f0c2a71-8f55-4a3b-9d0e-2b7c8b1f6e11'/></message>`
	xmppTyping  = `<message to='assistant00@chat.example' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>`
	xmppR       = `<r xmlns='urn:xmpp:sm:3'/>`
	xmppA       = `<a xmlns='urn:xmpp:sm:3' h='17'/>`
	xmppPing    = `<iq from='chat.example' to='user0000@chat.example/phone' id='s2c1' type='get'><ping xmlns='urn:xmpp:ping'/></iq>`
	xmppPong    = `<iq from='user0000@chat.example/phone' to='chat.example' id='s2c1' type='result'/>`

	xmppStream = `<?xml version='1.0'?><stream:stream to='chat.example' version='1.0' xml:lang='en' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`
	xmppHeader = `<?xml version='1.0'?><stream:stream from='chat.example' id='c2s-7f2e1a' version='1.0' xml:lang='en' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`
	xmppOffer  = `<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-256</mechanism><mechanism>PLAIN</mechanism></mechanisms></stream:features>`
	xmppAuth   = `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHVzZXIwMDAwAHVzZXIwMDAw</auth>`
	xmppOK     = `<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>`
	xmppBound  = `<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/><ver xmlns='urn:xmpp:features:rosterver'/></stream:features>`
	xmppResume = `<resume xmlns='urn:xmpp:sm:3' h='17' previd='some-long-sm-id-7f2e1a'/>`
	xmppAgain  = `<resumed xmlns='urn:xmpp:sm:3' h='17' previd='some-long-sm-id-7f2e1a'/>`
)

// xmppCosts are the exchanges, in the order of the report: what both sides send for one of each.
var xmppCosts = map[string][]string{
	"send":    {xmppSend, xmppR, xmppA},
	"receive": {xmppReceive, xmppR, xmppA, xmppReceipt, xmppMarker},
	"typing":  {xmppTyping},
	"ping":    {xmppPing, xmppPong},
	"resume":  {xmppStream, xmppHeader, xmppOffer, xmppAuth, xmppOK, xmppStream, xmppHeader, xmppBound, xmppResume, xmppAgain},
}

func xmppBytes(what string) (n int) {
	for _, stanza := range xmppCosts[what] {
		n += len(stanza)
	}
	return n
}
