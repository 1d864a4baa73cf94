#include "net/http/client.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/clock.h"
#include "net/wire/resolve.h"

#include <errno.h>
#include <llhttp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { HEADER_MAX = 64 * 1024, READ_SIZE = 64 * 1024, BODY_MAX = 64 * 1024 * 1024 };

struct reader {
    llhttp_t parser;
    llhttp_settings_t settings;
    struct rs_http_answer *answer;
    const char *problem; /* why parsing was stopped by us */
    size_t header_len, body_max;
    char field[16]; /* the header's name, cut */
    size_t field_len, type_len;
    bool in_value, head, done;
};

/* --- the answer ------------------------------------------------------------------------------------ */

static int too_long(struct reader *r, const char *what)
{
    r->problem = what;
    return -1;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct reader *r = p->data;

    if (r->in_value)
        r->field_len = 0;
    r->in_value = false;
    for (size_t i = 0; i < n; i++)
        if (r->field_len < sizeof(r->field) - 1)
            r->field[r->field_len++] = at[i];
    r->field[r->field_len] = '\0';
    r->header_len += n;
    return r->header_len > HEADER_MAX ? too_long(r, "a header over 64 KiB") : 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct reader *r = p->data;

    r->in_value = true;
    r->header_len += n;
    if (strcasecmp(r->field, "content-type") == 0)
        for (size_t i = 0; i < n && r->type_len < sizeof(r->answer->type) - 1; i++)
            r->answer->type[r->type_len++] = at[i];
    r->answer->type[r->type_len] = '\0';
    if (strcasecmp(r->field, "etag") == 0) {
        size_t had = strlen(r->answer->etag);

        snprintf(r->answer->etag + had, sizeof(r->answer->etag) - had, "%.*s", (int)n, at);
    }
    return r->header_len > HEADER_MAX ? too_long(r, "a header over 64 KiB") : 0;
}

static int on_headers_complete(llhttp_t *p)
{
    struct reader *r = p->data;

    while (r->type_len > 0 && r->answer->type[r->type_len - 1] == ' ')
        r->answer->type[--r->type_len] = '\0';
    return r->head ? 1 : 0; /* 1: no body follows, whatever the header says */
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct reader *r = p->data;

    if (rs_buf_len(&r->answer->body) + n > r->body_max)
        return too_long(r, "a body longer than allowed");
    rs_buf_append(&r->answer->body, at, n);
    return 0;
}

static int on_complete(llhttp_t *p)
{
    struct reader *r = p->data;

    if (p->status_code >= 100 && p->status_code < 200) {
        r->type_len = 0; /* the real answer follows */
        r->answer->type[0] = '\0';
        r->answer->etag[0] = '\0';
        return 0;
    }
    r->answer->status = p->status_code;
    r->done = true;
    return HPE_PAUSED;
}

static int judge(const struct reader *r, enum llhttp_errno code, const char *from,
                 struct rs_error *err)
{
    if (r->done || code == HPE_OK)
        return 0;
    if (r->problem)
        return rs_error_set(err, RS_NO_ROOM, "the answer of %s has %s", from, r->problem);
    return rs_error_set(err, RS_SYSTEM, "the answer of %s is not HTTP: %s", from,
                        llhttp_get_error_reason(&r->parser) && *llhttp_get_error_reason(&r->parser)
                            ? llhttp_get_error_reason(&r->parser)
                            : llhttp_errno_name(code));
}

/* --- the socket ------------------------------------------------------------------------------------ */

/* Waits until `fd` is ready for `events`. */
static int wait_for(int fd, short events, int64_t deadline, const char *from, struct rs_error *err)
{
    for (;;) {
        int64_t left = deadline - rs_clock_now();
        struct pollfd p = {.fd = fd, .events = events};
        int n = left > 0 ? poll(&p, 1, (int)((left + RS_MS - 1) / RS_MS)) : 0;

        if (n > 0)
            return 0;
        if (n == 0 && left > 0)
            continue;
        if (n == 0)
            return rs_error_set(err, RS_TIMEOUT, "%s did not answer in time", from);
        if (errno != EINTR)
            return rs_error_errno(err, errno, "cannot wait for %s", from);
    }
}

static int connect_failed(int sys_errno, const char *from, struct rs_error *err)
{
    bool nobody = sys_errno == ECONNREFUSED || sys_errno == EHOSTUNREACH ||
                  sys_errno == ENETUNREACH || sys_errno == ENETDOWN;

    rs_error_errno(err, sys_errno, "cannot connect to %s", from);
    if (err && nobody)
        err->code = RS_NOT_FOUND;
    return -1;
}

static int connect_to(const struct rs_address *to, int64_t deadline, const char *from, int *ret,
                      struct rs_error *err)
{
    rs_auto(rs_closep) int fd = -1;
    socklen_t len = sizeof(int);
    int failed = 0;

    fd = socket(to->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return rs_error_errno(err, errno, "cannot make a socket");
    if (connect(fd, (const struct sockaddr *)&to->sa, to->len) < 0) {
        if (errno != EINPROGRESS)
            return connect_failed(errno, from, err);
        if (wait_for(fd, POLLOUT, deadline, from, err) < 0)
            return -1;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len) < 0)
            return rs_error_errno(err, errno, "cannot connect to %s", from);
        if (failed)
            return connect_failed(failed, from, err);
    }
    *ret = rs_steal_fd(&fd);
    return 0;
}

/* A server may answer and close before it has read all: a failing send is told by the read. */
static int send_all(int fd, const struct rs_buf *b, int64_t deadline, const char *from,
                    struct rs_error *err)
{
    const char *at = rs_buf_head(b);
    size_t left = rs_buf_len(b);

    while (left > 0) {
        ssize_t n = send(fd, at, left, MSG_NOSIGNAL);

        if (n > 0) {
            at += n;
            left -= (size_t)n;
        } else if (errno == EAGAIN) {
            if (wait_for(fd, POLLOUT, deadline, from, err) < 0)
                return -1;
        } else if (errno != EINTR) {
            return 0;
        }
    }
    return 0;
}

static int read_answer(int fd, struct reader *r, int64_t deadline, const char *from,
                       struct rs_error *err)
{
    rs_auto(rs_freep) char *data = rs_alloc(READ_SIZE);
    size_t total = 0;

    while (!r->done) {
        ssize_t n = recv(fd, data, READ_SIZE, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (wait_for(fd, POLLIN, deadline, from, err) < 0)
                return -1;
            continue;
        }
        if (n < 0)
            return rs_error_errno(err, errno, "cannot read the answer of %s", from);
        if (n == 0) {
            if (judge(r, llhttp_finish(&r->parser), from, err) < 0)
                return -1;
            return r->done ? 0
                           : rs_error_set(err, RS_SYSTEM, "%s closed the connection %s", from,
                                          total ? "amid its answer" : "without an answer");
        }
        total += (size_t)n;
        if (judge(r, llhttp_execute(&r->parser, data, (size_t)n), from, err) < 0)
            return -1;
    }
    return 0;
}

/* --- calls ----------------------------------------------------------------------------------------- */

struct url {
    struct rs_address to;
    char authority[128]; /* "127.0.0.1:8265" */
    char host[128]; /* the same with an address in place of a name: a REST API refuses the names of
                          * others in Host, since a browser could be made to send those */
    const char *prefix; /* path of the base address */
    size_t prefix_len;  /* without a final slash */
};

static int parse_url(const char *base, int64_t timeout, struct url *ret, struct rs_error *err)
{
    static const char scheme[] = "http://";
    struct rs_error why = {0};
    const char *from;
    size_t n;

    if (strncmp(base, "https://", 8) == 0)
        return rs_error_set(err, RS_INVALID,
                            "expected an address as http://127.0.0.1:8265, got "
                            "\"%.200s\": https is not supported",
                            base);
    if (strncasecmp(base, scheme, sizeof(scheme) - 1) != 0)
        return rs_error_set(err, RS_INVALID,
                            "expected an address as http://127.0.0.1:8265, got \"%.200s\"", base);
    from = base + sizeof(scheme) - 1;
    n = strcspn(from, "/?#");
    if (n == 0 || n >= sizeof(ret->authority) || from[n] == '?' || from[n] == '#' ||
        strcspn(from, "@ \r\n") < strlen(from))
        return rs_error_set(err, RS_INVALID,
                            "expected an address as http://127.0.0.1:8265, got \"%.200s\"", base);
    memcpy(ret->authority, from, n);
    ret->authority[n] = '\0';
    ret->prefix = from + n;
    ret->prefix_len = strlen(ret->prefix);
    while (ret->prefix_len > 0 && ret->prefix[ret->prefix_len - 1] == '/')
        ret->prefix_len--;
    if (rs_address_resolve(ret->authority, 80, timeout, &ret->to, &why) < 0)
        return rs_error_set(err, why.code, "%s", why.msg);
    if (rs_address_is_name(ret->authority))
        rs_address_print(&ret->to, ret->host, sizeof(ret->host));
    else
        snprintf(ret->host, sizeof(ret->host), "%s", ret->authority);
    return 0;
}

static void put_request(struct rs_buf *out, const struct rs_http_call *call, const struct url *url)
{
    rs_buf_printf(out, "%s %.*s%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n",
                  call->method ? call->method : "GET", (int)url->prefix_len, url->prefix,
                  call->path, url->host);
    if (call->token)
        rs_buf_printf(out, "Authorization: Bearer %s\r\n", call->token);
    if (call->agent)
        rs_buf_printf(out, "User-Agent: %s\r\n", call->agent);
    if (call->if_match)
        rs_buf_printf(out, "If-Match: %s\r\n", call->if_match);
    if (call->body)
        rs_buf_printf(out, "Content-Length: %zu\r\nContent-Type: %s\r\n", call->len,
                      call->type ? call->type : "application/octet-stream");
    rs_buf_puts(out, "\r\n");
    if (call->body)
        rs_buf_append(out, call->body, call->len);
}

static void reader_init(struct reader *r, const struct rs_http_call *call,
                        struct rs_http_answer *answer)
{
    *r = (struct reader){.answer = answer,
                         .body_max = call->body_max ? call->body_max : BODY_MAX,
                         .head = call->method && strcmp(call->method, "HEAD") == 0};
    llhttp_settings_init(&r->settings);
    r->settings.on_header_field = on_field;
    r->settings.on_header_value = on_value;
    r->settings.on_headers_complete = on_headers_complete;
    r->settings.on_body = on_body;
    r->settings.on_message_complete = on_complete;
    llhttp_init(&r->parser, HTTP_RESPONSE, &r->settings);
    r->parser.data = r;
}

int rs_http_call(const struct rs_http_call *call, struct rs_http_answer *ret, struct rs_error *err)
{
    int64_t timeout = call->timeout ? call->timeout : 10 * RS_SEC;
    int64_t deadline = rs_clock_now() + timeout;
    rs_auto(rs_http_answer_fini) struct rs_http_answer answer = {0};
    rs_auto(rs_buf_fini) struct rs_buf request = {0};
    rs_auto(rs_closep) int fd = -1;
    struct url url = {0};
    struct reader r;

    if (parse_url(call->base, timeout, &url, err) < 0 ||
        connect_to(&url.to, deadline, url.authority, &fd, err) < 0)
        return -1;
    put_request(&request, call, &url);
    reader_init(&r, call, &answer);
    if (send_all(fd, &request, deadline, url.authority, err) < 0 ||
        read_answer(fd, &r, deadline, url.authority, err) < 0)
        return -1;
    *ret = answer;
    answer.body = (struct rs_buf){0};
    return 0;
}

void rs_http_answer_fini(struct rs_http_answer *answer)
{
    rs_buf_fini(&answer->body);
}
