package mqtt

// Pingreq is a PINGREQ.
type Pingreq struct{}

// Decode checks a PINGREQ.
func (p *Pingreq) Decode(v Version, first byte, body []byte) error {
	return decodeEmpty(PINGREQ, v, first, body)
}

// Append encodes the packet.
func (p *Pingreq) Append(dst []byte, _ Version) []byte { return append(dst, PINGREQ.first(), 0) }

// Pingresp is a PINGRESP.
type Pingresp struct{}

// Decode checks a PINGRESP.
func (p *Pingresp) Decode(v Version, first byte, body []byte) error {
	return decodeEmpty(PINGRESP, v, first, body)
}

// Append encodes the packet.
func (p *Pingresp) Append(dst []byte, _ Version) []byte { return append(dst, PINGRESP.first(), 0) }

func decodeEmpty(t Type, v Version, first byte, body []byte) error {
	if err := t.checkFirst(v, first); err != nil {
		return err
	}
	if len(body) > 0 {
		return malformed("packet has bytes behind its end")
	}
	return nil
}
