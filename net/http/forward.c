#include "net/http/forward.h"

#include "net/http/headers.h"
#include "net/wire/pickle.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static void put(struct rs_buf *b, const struct rs_field *f)
{
    rs_buf_append(b, f->data, f->len);
}

static bool equals(const struct rs_field *f, const char *text)
{
    return f->data && f->len == strlen(text) && memcmp(f->data, text, f->len) == 0;
}

/* May these bytes stand in a request line? */
static bool line_ok(const struct rs_field *f)
{
    for (uint32_t i = 0; i < f->len; i++)
        if ((unsigned char)f->data[i] <= ' ' || f->data[i] == 0x7f)
            return false;
    return true;
}

/* May these bytes stand in a header's value? */
static bool value_ok(const struct rs_field *f)
{
    for (uint32_t i = 0; i < f->len; i++)
        if (((unsigned char)f->data[i] < ' ' && f->data[i] != '\t') || f->data[i] == 0x7f)
            return false;
    return f->len > 0;
}

/* Methods of RFC 9110 that may be repeated. */
static bool idempotent(const char *method)
{
    static const char *const names[] = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"};

    for (size_t i = 0; i < RS_COUNT(names); i++)
        if (strcmp(method, names[i]) == 0)
            return true;
    return false;
}

static bool takes_body(const char *method)
{
    return strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 ||
           strcmp(method, "PATCH") == 0;
}

static void note(struct rs_forward *ret, const struct rs_field *method, const struct rs_field *path)
{
    snprintf(ret->method, sizeof(ret->method), "%.*s", (int)method->len, method->data);
    snprintf(ret->path, sizeof(ret->path), "%.*s", (int)path->len, path->data);
    ret->to_head = strcmp(ret->method, "HEAD") == 0;
    ret->idempotent = idempotent(ret->method);
}

/* Bytes of the route prefix that stand in front of the path. */
static uint32_t prefix_len(const struct rs_field *path, const struct rs_field *route)
{
    uint32_t n = route->len;

    while (n && route->data[n - 1] == '/')
        n--;
    if (!n || path->len < n || memcmp(path->data, route->data, n) != 0)
        return 0;
    return path->len == n || path->data[n] == '/' ? n : 0;
}

/* A header that we set ourselves, or that is not for the server behind us. */
static bool ours(const char *name)
{
    static const char *const names[] = {"host",           "content-length", "expect",
                                        "http2-settings", "x-request-id",   "x-forwarded-for"};

    for (size_t i = 0; i < RS_COUNT(names); i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

static void put_header(struct rs_buf *b, const char *name, const char *value, size_t len)
{
    rs_buf_puts(b, name);
    rs_buf_append(b, ": ", 2);
    rs_buf_append(b, value, len);
    rs_buf_append(b, "\r\n", 2);
}

static void put_field(struct rs_buf *b, const char *name, const struct rs_field *f)
{
    if (value_ok(f))
        put_header(b, name, f->data, f->len);
}

/* The client is in the list already where a trusted proxy named it. */
static bool lists(const char *list, const struct rs_field *address)
{
    const char *at = address->len && address->data
                         ? memmem(list, strlen(list), address->data, address->len)
                         : NULL;

    return at && (at == list || at[-1] == ' ' || at[-1] == ',' || at[-1] == '\t') &&
           (!at[address->len] || strchr(" ,:\t", at[address->len]));
}

/* "a, b, CLIENT's address without the port" */
static void put_forwarded_for(struct rs_buf *b, const struct rs_field *headers,
                              const struct rs_field *client)
{
    struct rs_http_headers h = rs_http_headers(headers->data, headers->len);
    const char *colon = client->data ? memrchr(client->data, ':', client->len) : NULL;
    struct rs_field address = {client->data,
                               colon ? (uint32_t)(colon - client->data) : client->len};
    const char *comma = "x-forwarded-for: ";
    bool listed = false;

    while (rs_http_headers_next(&h)) {
        if (strcasecmp(h.name, "x-forwarded-for") != 0 || !rs_http_header_ok(h.name, h.value))
            continue;
        rs_buf_puts(b, comma);
        rs_buf_puts(b, h.value);
        comma = ", ";
        listed |= lists(h.value, &address);
    }
    if (value_ok(&address) && !listed) {
        rs_buf_puts(b, comma);
        put(b, &address);
        comma = ", ";
    }
    if (*comma == ',')
        rs_buf_append(b, "\r\n", 2);
}

/* What the client sent, less what is not to be passed on. */
static void put_client_headers(struct rs_buf *b, const struct rs_field *headers)
{
    struct rs_http_headers h = rs_http_headers(headers->data, headers->len);
    const char *listed = rs_http_header(headers->data, headers->len, "connection");

    while (rs_http_headers_next(&h)) {
        if (rs_http_hop_by_hop(h.name) || ours(h.name) || !rs_http_header_ok(h.name, h.value) ||
            (listed && rs_http_has_token(listed, h.name)))
            continue;
        put_header(b, h.name, h.value, strlen(h.value));
    }
}

static void put_forwarded(struct rs_buf *b, const struct rs_fields *f, uint32_t prefix)
{
    const struct rs_field *headers = &f->at[RS_TAG_HEADERS];
    const struct rs_field *root = &f->at[RS_TAG_ROOT_PATH];
    const char *host = rs_http_header(headers->data, headers->len, "host");

    put_field(b, "x-request-id", &f->at[RS_TAG_REQUEST_ID]);
    put_forwarded_for(b, headers, &f->at[RS_TAG_CLIENT]);
    if (!rs_http_header(headers->data, headers->len, "x-forwarded-proto"))
        put_field(b, "x-forwarded-proto", &f->at[RS_TAG_SCHEME]);
    if (host && *host && rs_http_header_ok("host", host) &&
        !rs_http_header(headers->data, headers->len, "x-forwarded-host"))
        put_header(b, "x-forwarded-host", host, strlen(host));
    if (prefix && !rs_http_header(headers->data, headers->len, "x-forwarded-prefix")) {
        struct rs_field route = {f->at[RS_TAG_ROUTE].data, prefix};

        put_field(b, "x-forwarded-prefix", value_ok(root) ? root : &route);
    }
}

static void put_length(struct rs_buf *b, const struct rs_fields *f, bool whole, uint64_t len,
                       struct rs_forward *ret)
{
    const struct rs_field *headers = &f->at[RS_TAG_HEADERS];
    const char *said = rs_http_header(headers->data, headers->len, "content-length");
    uint64_t n = 0;
    bool known = said && *said;

    for (; known && *said; said++) {
        known = *said >= '0' && *said <= '9' && n < UINT64_MAX / 20;
        n = n * 10 + (uint64_t)(*said - '0');
    }
    ret->chunked = !whole && !known;
    ret->length = whole ? len : known ? n : 0;
    if (ret->chunked)
        rs_buf_puts(b, "transfer-encoding: chunked\r\n");
    else if (ret->length || !whole || takes_body(ret->method))
        rs_buf_printf(b, "content-length: %llu\r\n", (unsigned long long)ret->length);
}

int rs_forward_http(struct rs_buf *head, const struct rs_fields *f,
                    const struct rs_forward_conf *conf, bool whole, uint64_t len,
                    struct rs_forward *ret)
{
    const struct rs_field *method = &f->at[RS_TAG_HTTP_METHOD], *query = &f->at[RS_TAG_QUERY];
    const struct rs_field *headers = &f->at[RS_TAG_HEADERS];
    struct rs_field path = f->at[RS_TAG_PATH];
    const char *upgrade = rs_http_header(headers->data, headers->len, "upgrade");
    const char *host = rs_http_header(headers->data, headers->len, "host");
    uint32_t prefix;

    *ret = (struct rs_forward){0};
    if (!method->len || !path.len || !line_ok(method) || !line_ok(&path) || !line_ok(query))
        return 400;
    if (equals(method, "CONNECT") || (upgrade && rs_http_has_token(upgrade, "websocket")))
        return 501;
    prefix = conf->keep_prefix ? 0 : prefix_len(&path, &f->at[RS_TAG_ROUTE]);
    path.data += prefix;
    path.len -= prefix;
    if (!path.len)
        path = (struct rs_field){"/", 1};
    note(ret, method, &path);
    put(head, method);
    rs_buf_append(head, " ", 1);
    put(head, &path);
    if (query->len) {
        rs_buf_append(head, "?", 1);
        put(head, query);
    }
    rs_buf_puts(head, " HTTP/1.1\r\n");
    if (!host || !*host || !rs_http_header_ok("host", host))
        host = conf->host;
    put_header(head, "host", host, strlen(host));
    put_client_headers(head, headers);
    put_forwarded(head, f, prefix);
    put_length(head, f, whole, len, ret);
    rs_buf_append(head, "\r\n", 2);
    return 0;
}

/* --- handle calls -------------------------------------------------------------------------------- */

static int call_method(const struct rs_field *name, bool body, const char **ret,
                       struct rs_error *err)
{
    static const char *const methods[] = {"GET",   "HEAD",   "POST",   "PUT",
                                          "PATCH", "DELETE", "OPTIONS"};

    *ret = body ? "POST" : "GET";
    if (!name->len || equals(name, "__call__"))
        return 0;
    for (size_t i = 0; i < RS_COUNT(methods); i++) {
        if (name->len == strlen(methods[i]) &&
            strncasecmp(name->data, methods[i], name->len) == 0) {
            *ret = methods[i];
            return 0;
        }
    }
    return rs_error_set(err, RS_NOT_FOUND,
                        "an HTTP server has no method '%.*s': use get, post, put, patch, delete, "
                        "head or options",
                        (int)name->len, name->data);
}

static const char *guess_type(const char *body, size_t len)
{
    assert(body || !len);
    while (len && (*body == ' ' || *body == '\n' || *body == '\r' || *body == '\t')) {
        body++;
        len--;
    }
    return len && (*body == '{' || *body == '[') ? "application/json" : "application/octet-stream";
}

int rs_forward_call(struct rs_buf *head, const struct rs_fields *f,
                    const struct rs_forward_conf *conf, const char *args, size_t len,
                    struct rs_forward *ret, struct rs_error *err)
{
    const struct rs_field *name = &f->at[RS_TAG_DEPLOYMENT];
    struct rs_pickle_arg arg[2] = {{0}};
    struct rs_field path, verb;
    const char *method;
    int n = -1;

    *ret = (struct rs_forward){0};
    if (equals(&f->at[RS_TAG_CONTENT_TYPE], RS_PICKLE_TYPE))
        n = rs_pickle_args(args, len, arg, RS_COUNT(arg));
    path = (struct rs_field){arg[0].data, (uint32_t)arg[0].len};
    if (n < 1 || arg[0].len > UINT16_MAX || !path.len || path.data[0] != '/' || !line_ok(&path))
        return rs_error_set(err, RS_INVALID,
                            "deployment %.*s is an HTTP server: call it with a path that begins "
                            "with / and perhaps a body, as str or bytes",
                            (int)name->len, name->data);
    if (call_method(&f->at[RS_TAG_METHOD], arg[1].data != NULL, &method, err) < 0)
        return -1;
    verb = (struct rs_field){method, (uint32_t)strlen(method)};
    note(ret, &verb, &path);
    ret->body = arg[1].data;
    ret->length = arg[1].len;
    rs_buf_puts(head, method);
    rs_buf_append(head, " ", 1);
    put(head, &path);
    rs_buf_puts(head, " HTTP/1.1\r\n");
    put_header(head, "host", conf->host, strlen(conf->host));
    put_field(head, "x-request-id", &f->at[RS_TAG_REQUEST_ID]);
    put_field(head, "traceparent", &f->at[RS_TAG_TRACEPARENT]);
    if (ret->length)
        rs_buf_printf(head, "content-type: %s\r\n", guess_type(ret->body, (size_t)ret->length));
    if (ret->length || takes_body(method))
        rs_buf_printf(head, "content-length: %llu\r\n", (unsigned long long)ret->length);
    rs_buf_append(head, "\r\n", 2);
    return 0;
}
