package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// file reads a YAML document into c. path is for messages, which name the line.
func (c *Config) file(path string, data []byte) error {
	parsed, err := parser.ParseBytes(data, 0)
	if err != nil {
		return fmt.Errorf("%s: %s", path, strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	if len(parsed.Docs) > 1 {
		return fmt.Errorf("%s: holds more than one document", path)
	}
	for _, doc := range parsed.Docs {
		if err := c.node(path, "", doc.Body); err != nil {
			return err
		}
	}
	return nil
}

// node takes one value below prefix: a mapping of keys, or the value of a key.
func (c *Config) node(path, prefix string, n ast.Node) error {
	n = resolve(n)
	if n == nil || n.Type() == ast.NullType {
		return nil // a key without a value, as in a file whose values are commented out
	}
	if _, ok := n.(*ast.CommentGroupNode); ok {
		return nil
	}
	at := fmt.Sprintf("%s:%d", path, n.GetToken().Position.Line)
	if k, ok := lookup(prefix); ok {
		texts, err := values(k, n)
		if err != nil {
			return fmt.Errorf("%s: %s %w", at, prefix, err)
		}
		return c.assign(at, k, texts)
	}
	pairs := mapping(n)
	if pairs == nil {
		if prefix == "" {
			return fmt.Errorf("%s: wants keys, as in 'log: {level: info}'", at)
		}
		if section(prefix) {
			return fmt.Errorf("%s: %s is a section and wants keys below it, such as %s", at, prefix, Nearest(prefix+".", keyNames))
		}
		return &UnknownError{Origin: at, Name: "key " + prefix, Nearest: Nearest(prefix, keyNames)}
	}
	if prefix != "" && !section(prefix) && len(pairs) == 0 {
		return &UnknownError{Origin: at, Name: "key " + prefix, Nearest: Nearest(prefix, keyNames)}
	}
	for _, pair := range pairs {
		name := pair.Key.String()
		if s, ok := pair.Key.(*ast.StringNode); ok {
			name = s.Value
		}
		if prefix != "" {
			name = prefix + "." + name
		}
		if _, ok := lookup(name); !ok && !section(name) && mapping(resolve(pair.Value)) == nil {
			line := fmt.Sprintf("%s:%d", path, pair.Key.GetToken().Position.Line)
			return &UnknownError{Origin: line, Name: "key " + name, Nearest: Nearest(name, keyNames)}
		}
		if err := c.node(path, name, pair.Value); err != nil {
			return err
		}
	}
	return nil
}

// resolve looks through tags and anchors.
func resolve(n ast.Node) ast.Node {
	for {
		switch v := n.(type) {
		case *ast.TagNode:
			n = v.Value
		case *ast.AnchorNode:
			n = v.Value
		default:
			return n
		}
	}
}

func mapping(n ast.Node) []*ast.MappingValueNode {
	switch v := n.(type) {
	case *ast.MappingNode:
		if v.Values == nil {
			return []*ast.MappingValueNode{}
		}
		return v.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{v}
	}
	return nil
}

// values are the texts of a key's value.
func values(k Key, n ast.Node) ([]string, error) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		text, err := scalar(n)
		if err != nil {
			return nil, err
		}
		if k.List {
			return split(k.Name, text), nil
		}
		return []string{text}, nil
	}
	if !k.List {
		return nil, errors.New("wants one value, not a list")
	}
	texts := []string{}
	for _, item := range list.Values {
		item = resolve(item)
		text, err := "", error(nil)
		if pairs := mapping(item); pairs != nil && k.Name == "listen" {
			text, err = foldListener(pairs)
		} else {
			text, err = scalar(item)
		}
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// foldListener folds {url: tls://:8883, cert: c.pem} into tls://:8883?cert=c.pem.
func foldListener(pairs []*ast.MappingValueNode) (string, error) {
	var base string
	query := url.Values{}
	for _, pair := range pairs {
		name := pair.Key.GetToken().Value
		var texts []string
		if list, ok := resolve(pair.Value).(*ast.SequenceNode); ok {
			for _, item := range list.Values {
				text, err := scalar(resolve(item))
				if err != nil {
					return "", err
				}
				texts = append(texts, text)
			}
		} else {
			text, err := scalar(resolve(pair.Value))
			if err != nil {
				return "", err
			}
			texts = []string{text}
		}
		if name == "url" {
			base = texts[0]
			continue
		}
		query.Set(name, strings.Join(texts, ","))
	}
	if base == "" {
		return "", errors.New("wants 'url:' in each listener that is written as keys")
	}
	if len(query) == 0 {
		return base, nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("holds the listener %q, which is no URL", base)
	}
	both := u.Query()
	for _, name := range slices.Sorted(maps.Keys(query)) {
		both[name] = query[name]
	}
	u.RawQuery = both.Encode()
	return u.String(), nil
}

func scalar(n ast.Node) (string, error) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, nil
	case *ast.LiteralNode:
		return strings.TrimSpace(v.Value.Value), nil
	case *ast.NullNode:
		return "", nil
	case ast.ScalarNode:
		return v.GetToken().Value, nil
	}
	return "", errors.New("wants a plain value, not keys below it")
}
