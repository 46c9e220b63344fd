// Package adminpb is the language of operators: the gRPC service skein.admin.v1, which any node answers
// for the whole cluster. All of it but this file is generated from admin.proto by scripts/generate.
//
// It owns names and numbers on the wire: a field's number is never used again. It must never hold logic.
package adminpb
