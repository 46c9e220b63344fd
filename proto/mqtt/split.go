package mqtt

// maxRemaining is the largest remaining length, and variable byte integer.
const maxRemaining = 268_435_455

// Split finds the next packet in b. While more bytes are needed, n is 0 and err nil. Else n is the
// length of the whole packet and body what follows its fixed header; body aliases b. max is the
// largest whole packet in bytes, 0 for no limit: ErrTooLarge comes as soon as the header shows it.
// An encoding longer than needed is ErrMalformed [MQTT-1.5.5-1].
func Split(b []byte, max int) (first byte, body []byte, n int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	length, at := int(b[1]), 2
	if length >= 0x80 {
		length &= 0x7F
		for shift := 7; ; shift += 7 {
			if at > 4 {
				return 0, nil, 0, ErrMalformed
			}
			if at == len(b) {
				return 0, nil, 0, nil
			}
			c := b[at]
			at++
			length |= int(c&0x7F) << shift
			if c < 0x80 {
				if c == 0 {
					return 0, nil, 0, ErrMalformed
				}
				break
			}
		}
	}
	n = at + length
	switch {
	case max > 0 && n > max:
		return 0, nil, 0, ErrTooLarge
	case n > len(b):
		return 0, nil, 0, nil
	}
	return b[0], b[at:n:n], n, nil
}

// Missing is how many bytes more make the packet at the start of b whole, as far as can be told yet:
// at least 1, and 0 when it is whole. b is what Split found to be incomplete.
func Missing(b []byte) int {
	if len(b) < 2 {
		return 2 - len(b)
	}
	length := 0
	for i, c := range b[1:min(len(b), 5)] {
		length |= int(c&0x7F) << (7 * i)
		if c < 0x80 {
			return max(0, 2+i+length-len(b))
		}
	}
	return 1
}
