package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Text is the value of a key as the file would have it, a list with commas between. The value of a key that
// holds a secret is not told.
func (c *Config) Text(k Key) string {
	v := reflect.ValueOf(c).Elem().FieldByIndex(k.index)
	if last := k.Name[strings.LastIndexByte(k.Name, '.')+1:]; !strings.HasSuffix(last, "_file") && !v.IsZero() {
		for _, part := range []string{"password", "secret", "token"} {
			if v.Kind() == reflect.String && strings.Contains(last, part) {
				return "(hidden)"
			}
		}
	}
	if v.Kind() == reflect.Slice {
		var all []string
		for i := range v.Len() {
			all = append(all, fmt.Sprint(v.Index(i).Interface()))
		}
		return strings.Join(all, ",")
	}
	return fmt.Sprint(v.Interface())
}

// With is a copy in which a key has another value. The whole of it is validated.
func (c *Config) With(key, text string) (*Config, error) {
	k, ok := lookup(key)
	if !ok {
		return nil, &UnknownError{Origin: "set", Name: "key " + key, Nearest: Nearest(key, keyNames)}
	}
	texts := []string{text}
	if k.List {
		texts = split(k.Name, text)
	}
	changed := *c
	if err := changed.assign("set", k, texts); err != nil {
		return nil, err
	}
	if err := changed.Validate(); err != nil {
		return nil, err
	}
	return &changed, nil
}
