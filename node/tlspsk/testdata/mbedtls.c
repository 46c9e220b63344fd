/* A client of mbedTLS: PORT IDENTITY KEY SUITE [FRAGMENT]. It sends its input and prints what comes
   back. FRAGMENT is a code of max_fragment_length, 1 to 4. */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what, int code) {
	char text[200];
	mbedtls_strerror(code, text, sizeof text);
	fprintf(stderr, "%s: %s (-0x%04x)\n", what, text, (unsigned)-code);
	return 1;
}

int main(int argc, char **argv) {
	if (argc < 5)
		return 2;
	mbedtls_entropy_context entropy;
	mbedtls_ctr_drbg_context random;
	mbedtls_ssl_config conf;
	mbedtls_ssl_context ssl;
	mbedtls_net_context net;
	unsigned char key[64];
	size_t len = strlen(argv[3]) / 2;
	int suites[2] = {mbedtls_ssl_get_ciphersuite_id(argv[4]), 0}, code;

	if (suites[0] == 0 || len > sizeof key)
		return fprintf(stderr, "unknown suite, or too long a key\n"), 2;
	for (size_t i = 0; i < len; i++) {
		unsigned byte;
		sscanf(argv[3] + 2 * i, "%2x", &byte);
		key[i] = (unsigned char)byte;
	}
	mbedtls_entropy_init(&entropy);
	mbedtls_ctr_drbg_init(&random);
	mbedtls_ssl_config_init(&conf);
	mbedtls_ssl_init(&ssl);
	mbedtls_net_init(&net);
	if ((code = mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0)) != 0)
		return failed("seed", code);
	if ((code = mbedtls_net_connect(&net, "127.0.0.1", argv[1], MBEDTLS_NET_PROTO_TCP)) != 0)
		return failed("connect", code);
	if ((code = mbedtls_ssl_config_defaults(&conf, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT)) != 0)
		return failed("defaults", code);
	mbedtls_ssl_conf_rng(&conf, mbedtls_ctr_drbg_random, &random);
	mbedtls_ssl_conf_ciphersuites(&conf, suites);
	if (argc > 5 && (code = mbedtls_ssl_conf_max_frag_len(&conf, (unsigned char)atoi(argv[5]))) != 0)
		return failed("fragment", code);
	if ((code = mbedtls_ssl_conf_psk(&conf, key, len, (unsigned char *)argv[2], strlen(argv[2]))) != 0)
		return failed("psk", code);
	if ((code = mbedtls_ssl_setup(&ssl, &conf)) != 0)
		return failed("setup", code);
	mbedtls_ssl_set_bio(&ssl, &net, mbedtls_net_send, mbedtls_net_recv, NULL);
	if ((code = mbedtls_ssl_handshake(&ssl)) != 0)
		return failed("handshake", code);

	char line[1000];
	while (fgets(line, sizeof line, stdin) != NULL) {
		size_t n = strlen(line), got = 0;
		if ((code = mbedtls_ssl_write(&ssl, (unsigned char *)line, n)) != (int)n)
			return failed("write", code);
		while (got < n) {
			if ((code = mbedtls_ssl_read(&ssl, (unsigned char *)line + got, n - got)) <= 0)
				return failed("read", code);
			got += (size_t)code;
		}
		fwrite(line, 1, n, stdout);
		fflush(stdout);
	}
	return 0;
}
