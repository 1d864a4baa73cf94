/* TLS of the HTTP listener: a certificate that follows its files, and the records of one connection.
 *
 * OpenSSL sees no socket: what a connection sends waits in `out` for whoever writes it, what came is
 * asked for with `read`. A handshake looks at the files, at most once a second, and the next
 * ones have the new certificate; one that cannot be used leaves the old one in place and is logged once.
 *
 * Speaks: TLS 1.2 with forward secrecy and AEAD, TLS 1.3; ALPN http/1.1; client certificates where
 *         ca_certs is given, which then are required.
 * Thread: rs_tls_accept on any; a connection belongs to the thread of its socket.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct rs_tls;
struct rs_tls_conn;

enum rs_tls_file { RS_TLS_KEY, RS_TLS_CERT, RS_TLS_PASSWORD, RS_TLS_CA, RS_TLS_FILES };

/* "ssl_keyfile" and so on: as http_options calls them. */
extern const char *const rs_tls_names[RS_TLS_FILES];

struct rs_tls_conf {
    const char *of[RS_TLS_FILES]; /* paths, and the password; key and certificate NULL: no TLS */
};

/* On failure `which` (may be NULL) is what is at fault, and `err` tells what is wrong with it. */
RS_MUST_CHECK int rs_tls_new(struct rs_tls **ret, const struct rs_tls_conf *conf,
                             enum rs_tls_file *which, struct rs_error *err);
void rs_tls_free(struct rs_tls *t); /* connections may live on */
RS_DEFINE_AUTO(struct rs_tls *, rs_tls_free);

/* Takes at most `size` bytes from the peer, as recv without waiting; `arg` is rs_tls_accept's. */
typedef ssize_t rs_tls_read_fn(void *arg, void *to, size_t size);

/* NULL: out of memory. `now`: monotonic, for the look at the files. */
struct rs_tls_conn *rs_tls_accept(struct rs_tls *t, rs_tls_read_fn *read, void *arg, int64_t now);
void rs_tls_conn_free(struct rs_tls_conn *c);       /* NULL is fine */
bool rs_tls_connected(const struct rs_tls_conn *c); /* the handshake is over */
/* What is to be sent, handshakes and alerts included; consume what was. */
struct rs_buf *rs_tls_out(struct rs_tls_conn *c);

/* As recv without waiting; but unless EAGAIN is the reason, a result below `size` tells that there is no
 * more for now. EPROTO: this is not TLS as it is spoken here, an alert is in `out`. */
ssize_t rs_tls_recv(struct rs_tls_conn *c, void *to, size_t size);
/* The last rs_tls_recv left something. */
bool rs_tls_pending(const struct rs_tls_conn *c);
/* After EPROTO: what was received was HTTP without TLS. */
bool rs_tls_was_plain(const struct rs_tls_conn *c);
/* Encrypts all of it into `out`. */
RS_MUST_CHECK int rs_tls_send(struct rs_tls_conn *c, const void *data, size_t len);
/* No more will be sent. */
void rs_tls_shut(struct rs_tls_conn *c);
