/* A request's line and header: what they say, what a replica is told of them, and where the request
 * goes. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/model/policy.h"
#include "net/http/headers.h"
#include "net/http/ingress-internal.h"
#include "net/http/websocket_key.h"
#include "net/http/wishes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { FIELD_HEAD = 5 }; /* tag and length of a metadata field */

/* --- the header -------------------------------------------------------------------------------- */

struct span {
    size_t at, len; /* in the request's meta */
};

struct header_walk {
    struct rs_http_request *req;
    unsigned hosts;
    struct span model, session, trace;
    bool has_id, has_trace, has_model, has_session;
    int64_t timeout;                         /* that the client can wait; ns, 0: it does not say */
    int priority;                            /* -1: it does not say */
    bool upgrades, to_websocket, version_13; /* Connection, Upgrade, Sec-WebSocket-Version */
};

static void refuse(struct rs_http_request *req, int status, const char *why)
{
    if (req->bad)
        return;
    req->bad = status;
    req->bad_why = why;
}

static bool same(const char *name, size_t len, const char *what)
{
    return strlen(what) == len && memcmp(name, what, len) == 0;
}

/* Names reach the replica in lower case; "-" and "_" are the same in this one. */
static bool is_model_id(const char *name, size_t len)
{
    static const char want[] = "serve_multiplexed_model_id";

    if (len != sizeof(want) - 1)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (name[i] != want[i] && !(want[i] == '_' && name[i] == '-'))
            return false;
    }
    return true;
}

static void on_content_length(struct rs_http_request *req, const char *value, size_t len)
{
    uint64_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9' || n > UINT64_MAX / 10 - 10) {
            refuse(req, 400, "Invalid Content-Length.");
            return;
        }
        n = n * 10 + (uint64_t)(value[i] - '0');
    }
    if (!len || (req->has_length && n != req->content_length))
        refuse(req, 400, "Invalid Content-Length.");
    req->has_length = true;
    req->content_length = n;
}

static void on_transfer_encoding(struct rs_http_request *req, const char *value, size_t len)
{
    if (req->has_te || len != 7 || strncasecmp(value, "chunked", 7) != 0)
        refuse(req, 400, "Unsupported Transfer-Encoding.");
    req->has_te = true;
}

static void on_timeout_header(struct rs_http_request *req, const char *value)
{
    char *end;
    double t = strtod(value, &end);

    if (end == value || *end || isnan(t))
        return;
    req->timeout_s = t > 0 && t < 1e9 ? t : 0;
}

static void add_element(struct rs_buf *list, const char *value, size_t len)
{
    if (rs_buf_len(list))
        rs_buf_append(list, ",", 1);
    rs_buf_append(list, value, len);
}

/* What only a trusted proxy may say. */
static void look_at_via(struct rs_http_via *via, const char *name, size_t name_len,
                        const char *value, size_t len)
{
    if (same(name, name_len, "x-forwarded-for"))
        add_element(&via->chain, value, len);
    else if (same(name, name_len, "x-forwarded-proto"))
        add_element(&via->proto, value, len);
    else if (same(name, name_len, "forwarded"))
        add_element(&via->forwarded, value, len);
}

/* What the ingress itself has to know, by the name's length to begin with. */
static void look_at(struct header_walk *w, const char *name, size_t name_len, const char *value,
                    size_t len, struct span where)
{
    struct rs_http_request *req = w->req;

    switch (name_len) {
    case 4:
        if (same(name, name_len, "host"))
            w->hosts++;
        break;
    case 7:
        if (same(name, name_len, "upgrade"))
            w->to_websocket |= rs_http_has_token(value, "websocket");
        break;
    case 10:
        if (same(name, name_len, "connection"))
            w->upgrades |= rs_http_has_token(value, "upgrade");
        break;
    case 11:
        if (same(name, name_len, "traceparent") && !w->has_trace) {
            w->has_trace = true;
            w->trace = where;
        }
        break;
    case 12:
        if (same(name, name_len, "x-request-id") && !w->has_id) {
            w->has_id = true;
            rs_buf_append(&req->id, value, len);
        } else if ((same(name, name_len, "x-session-id") || same(name, name_len, "x_session_id")) &&
                   !w->has_session) {
            w->has_session = true;
            w->session = where;
        } else if (same(name, name_len, "grpc-timeout")) {
            w->timeout = rs_http_sooner(w->timeout, rs_http_timeout_grpc(value, len));
        }
        break;
    case 14:
        if (same(name, name_len, "content-length"))
            on_content_length(req, value, len);
        break;
    case 15:
        req->r.retry.safe |= same(name, name_len, "idempotency-key");
        break;
    case 17:
        if (same(name, name_len, "transfer-encoding"))
            on_transfer_encoding(req, value, len);
        else if (same(name, name_len, "sec-websocket-key") && rs_ws_key_ok(value, len))
            memcpy(req->websocket_key, value, len);
        break;
    case 18:
        if (same(name, name_len, "x-request-priority"))
            w->priority = rs_http_priority(value, len);
        break;
    case 20:
        if (same(name, name_len, "x-request-timeout-ms"))
            w->timeout = rs_http_sooner(w->timeout, rs_http_timeout_ms(value, len));
        break;
    case 21:
        if (same(name, name_len, "sec-websocket-version"))
            w->version_13 = same(value, len, "13");
        break;
    case 25:
        if (same(name, name_len, "x-request-timeout-seconds"))
            on_timeout_header(req, value);
        break;
    case 26:
        if (is_model_id(name, name_len) && !w->has_model) {
            w->has_model = true;
            w->model = where;
        }
        break;
    case 29:
        if (same(name, name_len, "x-request-disconnect-disabled"))
            req->stay = same(value, len, "?1");
        break;
    default:
        break;
    }
}

/* Characters of a token as they are passed on, in lower case; 0: not one. */
static const char token[256] = {
    ['!'] = '!', ['#'] = '#', ['$'] = '$', ['%'] = '%', ['&'] = '&', ['\''] = '\'', ['*'] = '*',
    ['+'] = '+', ['-'] = '-', ['.'] = '.', ['^'] = '^', ['_'] = '_', ['`'] = '`',   ['|'] = '|',
    ['~'] = '~', ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4',   ['5'] = '5',
    ['6'] = '6', ['7'] = '7', ['8'] = '8', ['9'] = '9', ['a'] = 'a', ['b'] = 'b',   ['c'] = 'c',
    ['d'] = 'd', ['e'] = 'e', ['f'] = 'f', ['g'] = 'g', ['h'] = 'h', ['i'] = 'i',   ['j'] = 'j',
    ['k'] = 'k', ['l'] = 'l', ['m'] = 'm', ['n'] = 'n', ['o'] = 'o', ['p'] = 'p',   ['q'] = 'q',
    ['r'] = 'r', ['s'] = 's', ['t'] = 't', ['u'] = 'u', ['v'] = 'v', ['w'] = 'w',   ['x'] = 'x',
    ['y'] = 'y', ['z'] = 'z', ['A'] = 'a', ['B'] = 'b', ['C'] = 'c', ['D'] = 'd',   ['E'] = 'e',
    ['F'] = 'f', ['G'] = 'g', ['H'] = 'h', ['I'] = 'i', ['J'] = 'j', ['K'] = 'k',   ['L'] = 'l',
    ['M'] = 'm', ['N'] = 'n', ['O'] = 'o', ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r',   ['S'] = 's',
    ['T'] = 't', ['U'] = 'u', ['V'] = 'v', ['W'] = 'w', ['X'] = 'x', ['Y'] = 'y',   ['Z'] = 'z',
};

/* Copies a name in lower case; false if it is no token. */
static bool copy_name(char *to, const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        to[i] = token[(unsigned char)name[i]];
        if (!to[i])
            return false;
    }
    return len > 0;
}

static enum MHD_Result on_header(void *arg, enum MHD_ValueKind kind, const char *key,
                                 size_t key_len, const char *value, size_t len)
{
    struct header_walk *w = arg;
    struct rs_http_request *req = w->req;
    struct rs_buf *meta = &req->r.meta;
    char *to;

    (void)kind;
    if (!value)
        value = "", len = 0;
    while (len && (value[len - 1] == ' ' || value[len - 1] == '\t'))
        len--;
    req->header_bytes += key_len + len + 4;
    if (req->header_bytes > req->server->conf->max_header) {
        refuse(req, 431, "Request Header Fields Too Large");
        return MHD_NO;
    }
    to = rs_buf_reserve(meta, key_len + len + 2);
    if (!copy_name(to, key, key_len)) { /* strict.c has seen that the value is text */
        refuse(req, 400, "Invalid header.");
        return MHD_NO;
    }
    to[key_len] = '\0';
    if (len)
        memcpy(to + key_len + 1, value, len);
    to[key_len + 1 + len] = '\0';
    look_at(w, to, key_len, to + key_len + 1, len,
            (struct span){rs_buf_len(meta) + key_len + 1, len});
    if (req->conn->trusted)
        look_at_via(&req->server->via, to, key_len, to + key_len + 1, len);
    if (!same(to, key_len, "transfer-encoding"))
        rs_buf_commit(meta, key_len + len + 2);
    return MHD_YES;
}

static void make_id(struct rs_http_request *req)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t *s = req->server->random;
    char *to = rs_buf_reserve(&req->id, 36);
    uint64_t bits[2];

    for (int i = 0; i < 2; i++) { /* xorshift128+ */
        uint64_t a = s[0], b = s[1];

        s[0] = b;
        a ^= a << 23;
        s[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
        bits[i] = s[1] + b;
    }
    for (size_t i = 0, n = 0; n < sizeof(bits); n++) {
        unsigned byte = (unsigned)(bits[n / 8] >> (8 * (n % 8)));

        if (i == 8 || i == 13 || i == 18 || i == 23)
            to[i++] = '-';
        to[i++] = digits[byte >> 4 & 15];
        to[i++] = digits[byte & 15];
    }
    to[14] = '4';
    to[19] = digits[8 | (bits[1] & 3)];
    rs_buf_commit(&req->id, 36);
}

static void put_span(struct rs_buf *meta, enum rs_tag tag, struct span s)
{
    rs_buf_reserve(meta, 5 + s.len); /* the source lies in the same buffer and must not move */
    rs_field_put(meta, tag, rs_buf_head(meta) + s.at, s.len);
}

static uint64_t hash_of(const struct rs_buf *meta, struct span s)
{
    return rs_wish_hash(rs_buf_head(meta) + s.at, s.len);
}

/* The length of a field that was begun before its length was known. */
static void patch_length(struct rs_buf *meta, size_t value_at)
{
    uint32_t len = (uint32_t)(rs_buf_len(meta) - value_at);

    for (size_t i = 0; i < 4; i++)
        rs_buf_head(meta)[value_at - 4 + i] = (char)(len >> (8 * i));
}

static void check_framing(struct header_walk *w)
{
    struct rs_http_request *req = w->req;

    if (req->has_te && (req->has_length || req->http_10))
        refuse(req, 400, "Transfer-Encoding and Content-Length do not go together.");
    if (w->hosts > 1)
        refuse(req, 400, "More than one Host header.");
}

/* A handshake is a request like any other until it turns out to be one: then the replica is told so
 * by KIND, which stands first in what the route's requests have in common. */
static void check_handshake(struct header_walk *w, size_t kind_at)
{
    struct rs_http_request *req = w->req;

    if (!w->upgrades || !w->to_websocket || req->http_10)
        return;
    req->label = "WS";
    if (strcmp(req->method, "GET") != 0)
        refuse(req, 400, "A WebSocket handshake is a GET request.");
    else if (req->has_te || req->content_length)
        refuse(req, 400, "A WebSocket handshake has no body.");
    else if (!w->version_13)
        refuse(req, 426, "Only version 13 of the WebSocket protocol is spoken here.");
    else if (!req->websocket_key[0])
        refuse(req, 400, "No valid Sec-WebSocket-Key.");
    if (req->bad)
        return;
    req->wants_websocket = true;
    req->r.retry.safe = false;
    rs_buf_head(&req->r.meta)[kind_at] = RS_REQUEST_WEBSOCKET;
}

/* Its client's wishes as far as they are granted: less time than there would be; less urgency, and more
 * as far as the application lets clients decide. */
static void grant(struct rs_http_request *req, const struct header_walk *w)
{
    uint8_t *priority = &req->r.priority;
    int most = req->policy->max_priority > *priority ? req->policy->max_priority : *priority;

    if (w->timeout && (req->timeout_s <= 0 || (double)w->timeout < req->timeout_s * (double)RS_SEC))
        req->timeout_s = (double)w->timeout / (double)RS_SEC;
    if (w->priority >= 0)
        *priority = (uint8_t)(w->priority < most ? w->priority : most);
    if (*priority != RS_PRIORITY_DEFAULT)
        rs_request_put_priority(&req->r);
}

/* May run twice without harm, as RFC 9110 has it. */
static bool is_safe(const char *method)
{
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 ||
           strcmp(method, "OPTIONS") == 0;
}

static void put_headers(struct rs_http_request *req, size_t kind_at)
{
    struct header_walk w = {.req = req, .priority = -1};
    struct rs_buf *meta = &req->r.meta;
    size_t at;

    rs_buf_clear(&req->server->via.chain);
    rs_buf_clear(&req->server->via.proto);
    rs_buf_clear(&req->server->via.forwarded);
    rs_field_put(meta, RS_TAG_HEADERS, "", 0);
    at = rs_buf_len(meta);
    (void)MHD_get_connection_values_n(req->mc, MHD_HEADER_KIND, on_header, &w);
    check_framing(&w);
    req->r.retry.safe |= is_safe(req->method);
    if (kind_at)
        check_handshake(&w, kind_at);
    if (!w.has_id) {
        make_id(req);
        rs_buf_append(meta, "x-request-id", sizeof("x-request-id"));
        rs_buf_append(meta, rs_buf_text(&req->id), rs_buf_len(&req->id) + 1);
    }
    patch_length(meta, at);
    if (rs_buf_len(&req->id)) {
        rs_field_put(meta, RS_TAG_REQUEST_ID, rs_buf_head(&req->id), rs_buf_len(&req->id));
    } else { /* an empty one is sent back, but is no id */
        make_id(req);
        rs_field_put(meta, RS_TAG_REQUEST_ID, rs_buf_head(&req->id), rs_buf_len(&req->id));
        rs_buf_clear(&req->id);
    }
    if (w.has_model) {
        put_span(meta, RS_TAG_MODEL_ID, w.model);
        req->r.waiter.wish.model = hash_of(meta, w.model);
    }
    if (w.has_session) {
        put_span(meta, RS_TAG_SESSION_ID, w.session);
        req->r.waiter.wish.session = hash_of(meta, w.session);
    }
    if (w.has_trace)
        put_span(meta, RS_TAG_TRACEPARENT, w.trace);
    grant(req, &w);
}

/* --- where it goes ----------------------------------------------------------------------------- */

static struct rs_http_route_cache *cache_of(struct rs_http_request *req, struct rs_route *route)
{
    const char *base = req->server->conf->root_path;
    struct rs_http_route_cache *c = route->cache;
    struct rs_buf root = {0};

    if (c)
        return c;
    c = route->cache = rs_alloc(sizeof(*c));
    route->table->drop_cache = rs_http_route_cache_free;
    rs_field_put_uint(&c->fields, RS_TAG_KIND, RS_REQUEST_HTTP);
    rs_field_put_str(&c->fields, RS_TAG_APP, route->app);
    rs_field_put_str(&c->fields, RS_TAG_DEPLOYMENT, route->ingress);
    rs_buf_printf(&root, "%s%s", base, strcmp(route->prefix, "/") == 0 ? "" : route->prefix);
    rs_field_put_str(&c->fields, RS_TAG_ROOT_PATH, rs_buf_text(&root));
    rs_field_put_str(&c->fields, RS_TAG_ROUTE, route->prefix);
    c->route_at = rs_buf_len(&c->fields) - strlen(route->prefix);
    if (route->ingress)
        c->target = rs_route_target(route->table, route->app, route->ingress);
    rs_buf_fini(&root);
    return c;
}

/* The path within the target: absolute form ("http://host/path") loses its authority. */
static const char *path_of(struct rs_http_request *req, size_t *len)
{
    const char *target = rs_buf_text(&req->target);
    const char *path;

    *len = req->path_len;
    if (strncasecmp(target, "http://", 7) != 0 && strncasecmp(target, "https://", 8) != 0)
        return target;
    path = strchr(target + 8, '/');
    if (!path || path >= target + req->path_len) {
        *len = 1;
        return "/";
    }
    *len = (size_t)(target + req->path_len - path);
    return path;
}

static void answer_own(struct rs_http_request *req, const char *ok_type, const char *ok)
{
    const struct rs_route_table *t = req->server->lane->routes;

    if (t->draining)
        rs_http_answer_text(req, 503, "text/plain; charset=utf-8", "This node is being drained.");
    else if (!t->populated)
        rs_http_answer_text(req, 503, "text/plain; charset=utf-8",
                            "Route table is not populated yet.");
    else
        rs_http_answer_text(req, 200, ok_type, ok);
}

void rs_http_answer_not_found(struct rs_http_request *req)
{
    struct rs_buf text = {0};
    const char *path;
    size_t len;
    char *to;

    path = path_of(req, &len);
    req->cause = RS_CAUSE_NO_ROUTE;
    rs_buf_puts(&text, "Path '");
    to = rs_buf_reserve(&text, len);
    rs_buf_commit(&text, rs_route_decode(path, len, to));
    rs_buf_puts(&text, "' not found. Ping http://.../-/routes for available routes.");
    rs_http_answer_text(req, 404, "text/plain; charset=utf-8", rs_buf_text(&text));
    rs_buf_fini(&text);
}

static void answer_full(struct rs_http_request *req)
{
    const struct rs_memory *m = req->server->lane->memory.all;
    char text[200];

    req->cause = RS_CAUSE_MEMORY;
    snprintf(text, sizeof(text),
             "Request refused: the node holds %lld bytes for requests under way, its limit is %lld "
             "(--buffer-memory).",
             (long long)atomic_load_explicit(&m->told, memory_order_relaxed), (long long)m->limit);
    rs_http_answer_text(req, 503, "text/plain; charset=utf-8", text);
}

/* Where no application is asked, or none is there, it is answered here. */
static void answer_or_leave(struct rs_http_request *req, struct rs_route *route, const char *path,
                            size_t len)
{
    const struct rs_route_table *t = req->server->lane->routes;

    if (req->bad) {
        req->cause = req->bad == MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE
                         ? RS_CAUSE_HEADER_TOO_LARGE
                         : RS_CAUSE_BAD_REQUEST;
        rs_http_answer_text(req, (unsigned)req->bad, "text/plain; charset=utf-8", req->bad_why);
    } else if (strcmp(req->method, "CONNECT") == 0) {
        req->cause = RS_CAUSE_BAD_REQUEST;
        rs_http_answer_text(req, 405, "text/plain; charset=utf-8", "Method Not Allowed");
    } else if (same(path, len, "/-/healthz")) {
        answer_own(req, "text/plain; charset=utf-8", "success");
    } else if (same(path, len, "/-/routes")) {
        answer_own(req, "application/json", t->json);
    } else if (route) {
        req->route = route;
        if (rs_memory_full(&req->server->lane->memory))
            answer_full(req);
    } else {
        rs_http_answer_not_found(req);
    }
}

/* All of it, also where the request is refused in the end: the header has to be read anyway. */
static void encode(struct rs_http_request *req, struct rs_route *route, const char *path,
                   size_t path_len, const char *version)
{
    const char *target = rs_buf_text(&req->target);
    size_t target_len = rs_buf_len(&req->target);
    struct rs_buf *meta = &req->r.meta;
    const char *base = req->server->conf->root_path;
    size_t kind_at = 0;

    if (route) {
        const struct rs_http_route_cache *c = cache_of(req, route);

        if (req->policy->request_timeout < 0 && c->target && c->target->request_timeout)
            req->timeout_s = (double)c->target->request_timeout / (double)RS_SEC;
        req->r.route_at = c->route_at;
        req->r.route_len = route->prefix_len;
        kind_at = rs_buf_len(meta) + FIELD_HEAD;
        rs_buf_append(meta, rs_buf_head(&c->fields), rs_buf_len(&c->fields));
    }
    if (!req->conn->trusted)
        rs_buf_append(meta, rs_buf_head(&req->conn->fields), rs_buf_len(&req->conn->fields));
    rs_field_put_str(meta, RS_TAG_HTTP_METHOD, req->method);
    if (base[0]) {
        size_t at;

        rs_field_put_str(meta, RS_TAG_PATH, base);
        at = rs_buf_len(meta) - strlen(base);
        rs_buf_append(meta, path, path_len);
        patch_length(meta, at);
    } else {
        rs_field_put(meta, RS_TAG_PATH, path, path_len);
    }
    if (target_len > req->path_len)
        rs_field_put(meta, RS_TAG_QUERY, target + req->path_len + 1,
                     target_len - req->path_len - 1);
    else
        rs_field_put(meta, RS_TAG_QUERY, "", 0);
    rs_field_put_str(meta, RS_TAG_HTTP_VERSION, version);
    put_headers(req, kind_at);
    if (req->conn->trusted)
        rs_http_origin_put(req, &req->server->via);
}

/* Before the header is read: what that says goes over it. */
static void follow_policy(struct rs_http_request *req, const struct rs_route_policy *p)
{
    req->policy = p;
    req->r.priority = p->priority;
    req->r.retry.safe = p->idempotent;
    if (p->request_timeout >= 0)
        req->timeout_s = (double)p->request_timeout / (double)RS_SEC;
}

static void set_label(struct rs_http_request *req)
{
    /* Any token may be a method, but labels are to be few. */
    static const char *const known[] = {
        "GET",       "POST",  "PUT",    "DELETE",   "HEAD",  "OPTIONS", "PATCH", "TRACE",
        "CONNECT",   "LINK",  "UNLINK", "PROPFIND", "COPY",  "MOVE",    "LOCK",  "UNLOCK",
        "PROPPATCH", "MKCOL", "REPORT", "SEARCH",   "PURGE", "QUERY"};

    req->label = "OTHER";
    for (size_t i = 0; i < RS_COUNT(known); i++) {
        if (strcmp(req->method, known[i]) == 0) {
            req->label = known[i];
            break;
        }
    }
}

void rs_http_begin(struct rs_http_request *req, const char *method, const char *version)
{
    struct rs_lane *lane = req->server->lane;
    size_t len, plain_len;
    const char *path = path_of(req, &len), *plain = path;
    struct rs_buf decoded = {0};
    struct rs_route *route;

    req->stage = RS_HTTP_UPLOAD;
    req->method = method;
    req->is_head = strcmp(method, "HEAD") == 0;
    req->http_10 = strcmp(version, "HTTP/1.0") == 0;
    req->timeout_s = (double)req->server->conf->request_timeout / (double)RS_SEC;
    req->header_bytes = strlen(method) + rs_buf_len(&req->target);
    req->bad = (int)rs_front_refused(req->conn->front, method, &req->bad_why);
    set_label(req);
    plain_len = len;
    if (memchr(path, '%', len)) {
        plain_len = rs_route_decode(path, len, rs_buf_reserve(&decoded, len));
        plain = rs_buf_head(&decoded);
    }
    req->route = &rs_route_table_ref(lane->routes)->none;
    route = rs_route_match(lane->routes, plain, plain_len);
    follow_policy(req, route ? rs_route_policy(route, plain, plain_len, method)
                             : &rs_route_policy_default);
    encode(req, route, path, len, strncmp(version, "HTTP/", 5) == 0 ? version + 5 : "1.1");
    answer_or_leave(req, route, plain, plain_len);
    rs_buf_fini(&decoded);
    if (!req->discard)
        rs_http_enforce(req);
    if (!req->discard && !req->cut_off && req->timeout_s > 0) {
        int64_t deadline = rs_loop_now(lane->loop) + (int64_t)(req->timeout_s * (double)RS_SEC);

        if (!req->wants_websocket) /* there it is one for the handshake, not for the calls after it */
            req->r.deadline = deadline;
        rs_timer_start(&req->timer, lane->loop, deadline);
    }
}
