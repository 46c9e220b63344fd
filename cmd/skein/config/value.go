package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as 64KiB, 1MiB, 2GiB, or plainly.
type Size uint64

var units = []struct {
	suffix string
	factor uint64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"KB", 1e3},
	{"B", 1},
}

// ParseSize reads what String writes.
func ParseSize(s string) (Size, error) {
	number, factor := strings.TrimSpace(s), uint64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = strings.TrimSpace(rest), u.factor
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || (n > 0 && n*factor/n != factor) {
		return 0, errors.New("wants a size, as in 1048576, 64KiB or 1MiB")
	}
	return Size(n * factor), nil
}

// String writes the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range units[:4] {
		if s > 0 && uint64(s)%u.factor == 0 {
			return strconv.FormatUint(uint64(s)/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}

// set parses text into the field. Lists take one element a text.
func set(field reflect.Value, texts []string) error {
	if field.Kind() == reflect.Slice {
		field.Set(reflect.ValueOf(append([]string(nil), texts...)))
		return nil
	}
	if len(texts) != 1 {
		return errors.New("wants one value, not a list")
	}
	text := texts[0]
	switch field.Interface().(type) {
	case Size:
		n, err := ParseSize(text)
		if err != nil {
			return err
		}
		field.SetUint(uint64(n))
		return nil
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return errors.New("wants a duration with its unit, as in 500ms, 10s or 2m")
		}
		field.SetInt(int64(d))
		return nil
	}
	switch field.Kind() {
	case reflect.String:
		field.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("wants true or false")
		}
		field.SetBool(b)
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return fmt.Errorf("wants a whole number from 0 to %d", 1<<31-1)
		}
		field.SetInt(n)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		n, err := strconv.ParseUint(text, 10, field.Type().Bits())
		if err != nil {
			return fmt.Errorf("wants a whole number from 0 to %d", uint64(1)<<field.Type().Bits()-1)
		}
		field.SetUint(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return errors.New("wants a number, as in 0.01")
		}
		field.SetFloat(f)
	default:
		panic("config: no parser for " + field.Type().String())
	}
	return nil
}

// format is the inverse of set, as YAML.
func format(field reflect.Value) string {
	switch v := field.Interface().(type) {
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = strconv.Quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case string:
		return strconv.Quote(v)
	case Size:
		return v.String()
	case time.Duration:
		return shortDuration(v)
	default:
		return fmt.Sprint(v)
	}
}

// shortDuration leaves out the zeroes that Duration.String ends with: 2m, not 2m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// split takes a list apart that came as one text, from the environment or from --set. A comma
// belongs to a listener's URL unless another URL follows it.
func split(key, text string) []string {
	var parts []string
	for _, part := range strings.Split(text, ",") {
		part = strings.TrimSpace(part)
		if key == "listen" && len(parts) > 0 && part != "" && !strings.Contains(part, "://") {
			parts[len(parts)-1] += "," + part
			continue
		}
		if part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}
