#include "net/http/answer.h"

#include "net/http/headers.h"

#include <string.h>

enum { HEADER_MAX = 64 << 10 };

static int give_up(struct rs_http_answer_in *a, const char *why)
{
    a->problem = why;
    return HPE_USER;
}

static bool in_trailer(const llhttp_t *p)
{
    const struct rs_http_answer_in *a = p->data;

    return a->status != 0;
}

static int count(struct rs_http_answer_in *a, size_t n)
{
    a->header_bytes += n;
    return a->header_bytes > HEADER_MAX ? give_up(a, "a header over 64 KiB") : 0;
}

/* --- llhttp's callbacks -------------------------------------------------------------------------- */

static int on_begin(llhttp_t *p)
{
    struct rs_http_answer_in *a = p->data;

    rs_buf_clear(&a->headers);
    rs_buf_clear(&a->dropped);
    a->name_at = 0;
    return 0;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct rs_http_answer_in *a = p->data;
    char *to;

    if (in_trailer(p))
        return count(a, n);
    to = rs_buf_reserve(&a->headers, n);
    for (size_t i = 0; i < n; i++)
        to[i] = at[i] >= 'A' && at[i] <= 'Z' ? (char)(at[i] | 0x20) : at[i];
    rs_buf_commit(&a->headers, n);
    return count(a, n);
}

static int on_field_complete(llhttp_t *p)
{
    struct rs_http_answer_in *a = p->data;

    if (in_trailer(p))
        return 0;
    rs_buf_append(&a->headers, "", 1);
    a->value_at = rs_buf_len(&a->headers);
    return count(a, 1);
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct rs_http_answer_in *a = p->data;

    if (!in_trailer(p))
        rs_buf_append(&a->headers, at, n);
    return count(a, n);
}

static int on_value_complete(llhttp_t *p)
{
    struct rs_http_answer_in *a = p->data;
    char *name, *value;
    size_t len;

    if (in_trailer(p))
        return 0;
    rs_buf_append(&a->headers, "", 1);
    name = rs_buf_head(&a->headers) + a->name_at;
    value = rs_buf_head(&a->headers) + a->value_at;
    len = strlen(value);
    for (size_t i = 0; i < len; i++) /* a folded line */
        if (value[i] == '\r' || value[i] == '\n')
            value[i] = ' ';
    while (len && (value[len - 1] == ' ' || value[len - 1] == '\t'))
        value[--len] = '\0';
    if (!rs_http_header_ok(name, value))
        return give_up(a, "a header whose name is none");
    if (strcmp(name, "connection") == 0) {
        rs_buf_puts(&a->dropped, value);
        rs_buf_puts(&a->dropped, ",");
    }
    if (rs_http_hop_by_hop(name))
        a->headers.end = a->headers.start + a->name_at;
    else
        a->headers.end = (size_t)(value - a->headers.data) + len + 1;
    a->name_at = rs_buf_len(&a->headers);
    return count(a, 1);
}

/* Takes out what Connection named. */
static void drop_listed(struct rs_http_answer_in *a)
{
    char *base = rs_buf_head(&a->headers), *to = base;
    struct rs_http_headers h = rs_http_headers(base, rs_buf_len(&a->headers));

    if (!rs_buf_len(&a->dropped))
        return;
    while (rs_http_headers_next(&h)) {
        size_t n = (size_t)(h.at - h.name);

        if (rs_http_has_token(rs_buf_text(&a->dropped), h.name) &&
            strcmp(h.name, "content-length") != 0)
            continue;
        memmove(to, h.name, n);
        to += n;
    }
    if (base)
        a->headers.end = a->headers.start + (size_t)(to - base);
}

static int on_headers_complete(llhttp_t *p)
{
    struct rs_http_answer_in *a = p->data;

    if (p->status_code == 101 || p->upgrade)
        return give_up(a, "a change of protocol that nobody asked for");
    if (p->status_code < 100)
        return give_up(a, "a status below 100");
    if (p->status_code < 200)
        return 1; /* not the answer yet */
    if (p->http_major != 1)
        return give_up(a, "a version other than HTTP/1");
    drop_listed(a);
    a->status = p->status_code;
    return a->to_head || a->status == 204 || a->status == 304 ? 1 : 0; /* 1: no body */
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct rs_http_answer_in *a = p->data;

    if (!n)
        return 0;
    if (!a->span_len && !rs_buf_len(&a->body)) {
        a->span = at;
        a->span_len = n;
        return 0;
    }
    if (a->span_len) {
        rs_buf_append(&a->body, a->span, a->span_len);
        a->span_len = 0;
    }
    rs_buf_append(&a->body, at, n);
    return 0;
}

static int on_complete(llhttp_t *p)
{
    struct rs_http_answer_in *a = p->data;

    if (!a->status)
        return 0; /* 1xx: the answer follows */
    a->done = true;
    a->keep_alive = llhttp_should_keep_alive(p) != 0;
    return HPE_PAUSED;
}

static llhttp_settings_t settings = {
    .on_message_begin = on_begin,
    .on_header_field = on_field,
    .on_header_field_complete = on_field_complete,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

/* --- ours ---------------------------------------------------------------------------------------- */

void rs_answer_begin(struct rs_http_answer_in *a, bool to_head)
{
    struct rs_buf headers = a->headers, body = a->body, dropped = a->dropped;

    rs_buf_clear(&headers);
    rs_buf_clear(&body);
    rs_buf_clear(&dropped);
    *a = (struct rs_http_answer_in){
        .headers = headers, .body = body, .dropped = dropped, .to_head = to_head};
    llhttp_init(&a->parser, HTTP_RESPONSE, &settings);
    a->parser.data = a;
}

void rs_answer_fini(struct rs_http_answer_in *a)
{
    rs_buf_fini(&a->headers);
    rs_buf_fini(&a->body);
    rs_buf_fini(&a->dropped);
}

static int judge(const struct rs_http_answer_in *a, enum llhttp_errno code, struct rs_error *err)
{
    const char *why = llhttp_get_error_reason(&a->parser);

    if (a->problem)
        return rs_error_set(err, RS_INVALID, "the answer has %s", a->problem);
    return rs_error_set(err, RS_INVALID, "the answer is not HTTP: %s",
                        why && *why ? why : llhttp_errno_name(code));
}

int rs_answer_feed(struct rs_http_answer_in *a, const char *data, size_t n, size_t *used,
                   struct rs_error *err)
{
    enum llhttp_errno code;

    a->span_len = 0;
    rs_buf_clear(&a->body);
    *used = 0;
    if (a->done)
        return 0;
    code = llhttp_execute(&a->parser, data, n);
    if (a->done) {
        const char *stop = llhttp_get_error_pos(&a->parser);

        *used = code == HPE_PAUSED && stop ? (size_t)(stop - data) : n;
        return 0;
    }
    *used = n;
    return code == HPE_OK ? 0 : judge(a, code, err);
}

int rs_answer_eof(struct rs_http_answer_in *a, struct rs_error *err)
{
    enum llhttp_errno code;

    a->span_len = 0;
    rs_buf_clear(&a->body);
    if (a->done)
        return 0;
    if (!a->status)
        return rs_error_set(err, RS_INVALID, "it closed the connection without an answer");
    code = llhttp_finish(&a->parser);
    if (a->done) {
        a->keep_alive = false;
        return 0;
    }
    return code == HPE_OK || code == HPE_INVALID_EOF_STATE
               ? rs_error_set(err, RS_INVALID, "it closed the connection within its answer")
               : judge(a, code, err);
}

const char *rs_answer_body(const struct rs_http_answer_in *a, size_t *len)
{
    *len = a->span_len ? a->span_len : rs_buf_len(&a->body);
    return a->span_len ? a->span : rs_buf_head(&a->body);
}
