#include "net/http/tls.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
    READ_BUFFER = 64 << 10, /* several records by one system call */
    FRESH_S = 2,            /* files that are younger may be half of a pair */
};

const char *const rs_tls_names[RS_TLS_FILES] = {"ssl_keyfile", "ssl_certfile",
                                                "ssl_keyfile_password", "ssl_ca_certs"};

/* What a file looked like. All zero: it was not there. */
struct stamp {
    struct timespec changed;
    ino_t inode;
    off_t size;
};

struct rs_tls {
    pthread_mutex_t lock; /* of all that follows */
    char *of[RS_TLS_FILES];
    SSL_CTX *ctx;
    struct stamp seen[RS_TLS_FILES]; /* when ctx was made, or could not be made */
    int64_t looked_at;
    bool owes_word; /* what was seen last is no good and that was not said yet */
};

struct rs_tls_conn {
    SSL *ssl;
    rs_tls_read_fn *read;
    void *arg;
    struct rs_buf out;
    bool drained; /* the socket has no more for now */
    bool pending, failed, plain, ended, shut;
};

/* --- records without a socket ------------------------------------------------------------------ */

static int bio_read(BIO *bio, char *to, int size)
{
    struct rs_tls_conn *c = BIO_get_data(bio);
    ssize_t n = -1;

    BIO_clear_retry_flags(bio);
    if (size <= 0)
        return 0;
    if (!c->drained) {
        n = c->read(c->arg, to, (size_t)size);
        c->drained = n < size;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -1;
    }
    if (n < 0)
        BIO_set_retry_read(bio);
    return (int)n;
}

static int bio_write(BIO *bio, const char *data, int len)
{
    struct rs_tls_conn *c = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (len > 0)
        rs_buf_append(&c->out, data, (size_t)len);
    return len;
}

static long bio_ctrl(BIO *bio, int what, long number, void *arg)
{
    (void)bio;
    (void)number;
    (void)arg;
    return what == BIO_CTRL_FLUSH;
}

static BIO_METHOD *method;

/* Once. The machine's openssl.cnf may name modules, which a static program cannot load: it is not read. */
static void start_openssl(void)
{
    (void)OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "rserve");
    if (!method)
        return;
    (void)BIO_meth_set_read(method, bio_read);
    (void)BIO_meth_set_write(method, bio_write);
    (void)BIO_meth_set_ctrl(method, bio_ctrl);
}

/* --- the certificate --------------------------------------------------------------------------- */

static int fail(enum rs_tls_file *which, enum rs_tls_file file)
{
    if (which)
        *which = file;
    return -1;
}

/* The file can be opened; OpenSSL does not tell why not. */
static int readable(const char *path, struct rs_error *err)
{
    FILE *f = fopen(path, "re");
    int c = f ? fgetc(f) : EOF, e = errno;

    if (f)
        fclose(f);
    if (!f || (c == EOF && e == EISDIR))
        return rs_error_errno(err, e, "cannot read \"%s\"", path);
    return 0;
}

struct asked {
    const char *password;
    bool was;
};

static int on_password(char *to, int size, int writing, void *arg)
{
    struct asked *a = arg;
    size_t n = a->password ? strlen(a->password) : 0;

    (void)writing;
    a->was = true;
    if (!a->password || n > (size_t)size)
        return -1;
    memcpy(to, a->password, n);
    return (int)n;
}

static int use_key(SSL_CTX *ctx, char *const of[RS_TLS_FILES], enum rs_tls_file *which,
                   struct rs_error *err)
{
    struct asked asked = {.password = of[RS_TLS_PASSWORD]};
    const char *path = of[RS_TLS_KEY];
    EVP_PKEY *key;
    BIO *in;
    bool fits;

    if (readable(path, err) < 0)
        return fail(which, RS_TLS_KEY);
    in = BIO_new_file(path, "r");
    key = in ? PEM_read_bio_PrivateKey(in, NULL, on_password, &asked) : NULL;
    BIO_free(in);
    if (!key && asked.was) {
        rs_error_set(err, RS_INVALID,
                     asked.password ? "this is not the password of \"%s\""
                                    : "\"%s\" is encrypted and there is no ssl_keyfile_password",
                     path);
        return fail(which, asked.password ? RS_TLS_PASSWORD : RS_TLS_KEY);
    }
    if (!key) {
        rs_error_set(err, RS_INVALID, "expected a private key in PEM form, \"%s\" has none", path);
        return fail(which, RS_TLS_KEY);
    }
    fits = X509_check_private_key(SSL_CTX_get0_certificate(ctx), key) == 1 &&
           SSL_CTX_use_PrivateKey(ctx, key) == 1;
    EVP_PKEY_free(key);
    if (fits)
        return 0;
    rs_error_set(err, RS_INVALID, "the private key \"%s\" is not that of the certificate \"%s\"",
                 path, of[RS_TLS_CERT]);
    return fail(which, RS_TLS_KEY);
}

static int use_certificate(SSL_CTX *ctx, const char *path, enum rs_tls_file *which,
                           struct rs_error *err)
{
    const char *why;

    if (readable(path, err) < 0)
        return fail(which, RS_TLS_CERT);
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(ctx, path) == 1)
        return 0;
    why = ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_SSL ? ERR_reason_error_string(ERR_peek_error())
                                                       : NULL;
    rs_error_set(err, RS_INVALID, "expected a certificate in PEM form, \"%s\" has none%s%s%s", path,
                 why ? " that can be used (" : "", why ? why : "", why ? ")" : "");
    return fail(which, RS_TLS_CERT);
}

static int use_authorities(SSL_CTX *ctx, const char *path, enum rs_tls_file *which,
                           struct rs_error *err)
{
    STACK_OF(X509_NAME) * names;

    if (!path)
        return 0;
    if (readable(path, err) < 0)
        return fail(which, RS_TLS_CA);
    names = SSL_load_client_CA_file(path);
    if (!names || SSL_CTX_load_verify_file(ctx, path) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        rs_error_set(err, RS_INVALID, "expected certificates in PEM form, \"%s\" has none", path);
        return fail(which, RS_TLS_CA);
    }
    SSL_CTX_set_client_CA_list(ctx, names);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

/* Clients that speak other protocols only are told so by an alert. */
static int on_alpn(SSL *ssl, const unsigned char **ret, unsigned char *ret_len,
                   const unsigned char *offered, unsigned int len, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1\x08http/1.0";

    (void)ssl;
    (void)arg;
    return SSL_select_next_proto((unsigned char **)(uintptr_t)ret, ret_len, ours, sizeof(ours) - 1,
                                 offered, len) == OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void set_rules(SSL_CTX *ctx)
{
    static const unsigned char name[] = "rserve";

    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    (void)SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20");
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets serve all lanes */
    (void)SSL_CTX_set_session_id_context(ctx, name, sizeof(name) - 1);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
}

static int make_context(SSL_CTX **ret, char *const of[RS_TLS_FILES], enum rs_tls_file *which,
                        struct rs_error *err)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    if (!ctx) {
        rs_error_set(err, RS_SYSTEM, "OpenSSL does not start");
        return fail(which, RS_TLS_CERT);
    }
    set_rules(ctx);
    if (use_certificate(ctx, of[RS_TLS_CERT], which, err) < 0 || use_key(ctx, of, which, err) < 0 ||
        use_authorities(ctx, of[RS_TLS_CA], which, err) < 0) {
        SSL_CTX_free(ctx);
        ERR_clear_error();
        return -1;
    }
    *ret = ctx;
    return 0;
}

/* --- following its files ----------------------------------------------------------------------- */

static void look(char *const of[RS_TLS_FILES], struct stamp ret[RS_TLS_FILES])
{
    for (int i = 0; i < RS_TLS_FILES; i++) {
        struct stat st;

        ret[i] = (struct stamp){0};
        if (i != RS_TLS_PASSWORD && of[i] && stat(of[i], &st) == 0)
            ret[i] = (struct stamp){st.st_mtim, st.st_ino, st.st_size};
    }
}

static bool same(const struct stamp *a, const struct stamp *b)
{
    return a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec &&
           a->inode == b->inode && a->size == b->size;
}

static bool is_fresh(const struct stamp *stamps)
{
    time_t now = time(NULL);

    for (int i = 0; i < RS_TLS_FILES; i++) {
        if (stamps[i].changed.tv_sec + FRESH_S > now)
            return true;
    }
    return false;
}

/* A client that holds a ticket of the old context goes on with it; where clients show certificates they
 * show them again. */
static void keep_tickets(const struct rs_tls *t, SSL_CTX *next)
{
    unsigned char keys[80];

    if (!t->of[RS_TLS_CA] && SSL_CTX_get_tlsext_ticket_keys(t->ctx, keys, sizeof(keys)) == 1)
        (void)SSL_CTX_set_tlsext_ticket_keys(next, keys, sizeof(keys));
    OPENSSL_cleanse(keys, sizeof(keys));
}

static void follow(struct rs_tls *t)
{
    struct stamp now[RS_TLS_FILES];
    struct rs_error err = {0};
    SSL_CTX *next = NULL;
    bool changed = false;

    look(t->of, now);
    for (int i = 0; i < RS_TLS_FILES; i++)
        changed |= !same(&now[i], &t->seen[i]);
    if (!changed && !t->owes_word)
        return;
    memcpy(t->seen, now, sizeof(now));
    if (make_context(&next, t->of, NULL, &err) == 0) {
        keep_tickets(t, next);
        SSL_CTX_free(t->ctx);
        t->ctx = next;
        t->owes_word = false;
        rs_log_info("the certificate was read anew", "file=\"%s\"", t->of[RS_TLS_CERT]);
    } else if (is_fresh(now)) {
        t->owes_word = true; /* perhaps the other half is being written */
    } else {
        t->owes_word = false;
        rs_log_warn("the new certificate cannot be used, the old one stays", "error=\"%s\"",
                    err.msg);
    }
}

int rs_tls_new(struct rs_tls **ret, const struct rs_tls_conf *conf, enum rs_tls_file *which,
               struct rs_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    rs_auto(rs_tls_freep) struct rs_tls *t = rs_alloc(sizeof(*t));

    (void)pthread_once(&once, start_openssl);
    (void)pthread_mutex_init(&t->lock, NULL);
    for (int i = 0; i < RS_TLS_FILES; i++)
        t->of[i] = conf->of[i] ? rs_strdup(conf->of[i]) : NULL;
    look(t->of, t->seen);
    if (make_context(&t->ctx, t->of, which, err) < 0)
        return -1;
    *ret = rs_steal(t);
    return 0;
}

void rs_tls_free(struct rs_tls *t)
{
    if (!t)
        return;
    if (t->of[RS_TLS_PASSWORD])
        OPENSSL_cleanse(t->of[RS_TLS_PASSWORD], strlen(t->of[RS_TLS_PASSWORD]));
    for (int i = 0; i < RS_TLS_FILES; i++)
        free(t->of[i]);
    SSL_CTX_free(t->ctx);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}

/* --- one connection ---------------------------------------------------------------------------- */

struct rs_tls_conn *rs_tls_accept(struct rs_tls *t, rs_tls_read_fn *read, void *arg, int64_t now)
{
    struct rs_tls_conn *c = rs_alloc(sizeof(*c));
    BIO *bio = method ? BIO_new(method) : NULL;

    c->read = read;
    c->arg = arg;
    (void)pthread_mutex_lock(&t->lock);
    if (now - t->looked_at >= RS_SEC) {
        t->looked_at = now;
        follow(t);
    }
    c->ssl = SSL_new(t->ctx);
    (void)pthread_mutex_unlock(&t->lock);
    if (!c->ssl || !bio) {
        BIO_free(bio);
        rs_tls_conn_free(c);
        return NULL;
    }
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    SSL_set_bio(c->ssl, bio, bio);
    SSL_set_accept_state(c->ssl);
    return c;
}

void rs_tls_conn_free(struct rs_tls_conn *c)
{
    if (!c)
        return;
    SSL_free(c->ssl);
    rs_buf_fini(&c->out);
    free(c);
}

bool rs_tls_connected(const struct rs_tls_conn *c)
{
    return SSL_is_init_finished(c->ssl);
}

struct rs_buf *rs_tls_out(struct rs_tls_conn *c)
{
    return &c->out;
}

bool rs_tls_pending(const struct rs_tls_conn *c)
{
    return c->pending;
}

bool rs_tls_was_plain(const struct rs_tls_conn *c)
{
    return c->plain;
}

/* SSL_read gave nothing: why. */
static void take_reason(struct rs_tls_conn *c, int result)
{
    unsigned long e = ERR_peek_error();
    char text[160];

    switch (SSL_get_error(c->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return;
    case SSL_ERROR_ZERO_RETURN:
        c->ended = true;
        return;
    default:
        break;
    }
    if (!e) { /* the socket broke, or ended in the middle of a handshake */
        c->ended = true;
        return;
    }
    c->failed = true;
    c->plain = ERR_GET_REASON(e) == SSL_R_HTTP_REQUEST;
    ERR_error_string_n(e, text, sizeof(text));
    rs_log_debug("a TLS connection failed", "error=\"%s\"", text);
}

ssize_t rs_tls_recv(struct rs_tls_conn *c, void *to, size_t size)
{
    size_t done = 0;

    c->drained = c->pending = false;
    while (done < size && !c->ended && !c->failed) {
        size_t left = size - done;
        int n;

        ERR_clear_error();
        n = SSL_read(c->ssl, (char *)to + done, left > INT_MAX ? INT_MAX : (int)left);
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        take_reason(c, n);
        if (!c->ended && !c->failed)
            break;
    }
    ERR_clear_error();
    c->pending = done == size && size > 0;
    if (done)
        return (ssize_t)done;
    if (c->ended)
        return 0;
    errno = c->failed ? EPROTO : EAGAIN;
    return -1;
}

int rs_tls_send(struct rs_tls_conn *c, const void *data, size_t len)
{
    ERR_clear_error();
    while (len && !c->failed && !c->shut) {
        int n = SSL_write(c->ssl, data, len > INT_MAX ? INT_MAX : (int)len);

        if (n <= 0) {
            c->failed = true;
            break;
        }
        data = (const char *)data + n;
        len -= (size_t)n;
    }
    ERR_clear_error();
    errno = EPIPE;
    return len ? -1 : 0;
}

void rs_tls_shut(struct rs_tls_conn *c)
{
    if (c->shut)
        return;
    c->shut = true;
    if (c->failed || !SSL_is_init_finished(c->ssl))
        return;
    ERR_clear_error();
    (void)SSL_shutdown(c->ssl);
    ERR_clear_error();
}
