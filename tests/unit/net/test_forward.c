/* Requests as a server behind us gets them. */
#include "net/http/forward.h"

#include "net/wire/pickle.h"
#include "tests/unit/check_main.h"

#include <string.h>

struct forward_case {
    const char *method, *path, *query, *route, *root_path;
    const char *headers; /* name=value|... */
    const char *client;  /* NULL: 10.0.0.9:1234 */
    bool part, keep;     /* part: the body is not all there */
    uint64_t len;
    int status;
    const char *head; /* without the first Host and the last three forwarding headers, see below */
    bool chunked;
    uint64_t length;
};

#define TAIL "x-request-id: r1\r\nx-forwarded-for: 10.0.0.9\r\nx-forwarded-proto: http\r\n"
#define HOST "host: 127.0.0.1:81\r\n"

static const struct forward_case cases[] = {
    {.method = "GET",
     .path = "/a%20b",
     .query = "x=1&y",
     .head = "GET /a%20b?x=1&y HTTP/1.1\r\n" HOST TAIL},
    {.method = "GET", .path = "/", .route = "/", .head = "GET / HTTP/1.1\r\n" HOST TAIL},
    {.method = "GET",
     .path = "/api/v1/x",
     .route = "/api",
     .head = "GET /v1/x HTTP/1.1\r\n" HOST TAIL "x-forwarded-prefix: /api\r\n"},
    {.method = "GET",
     .path = "/api",
     .route = "/api",
     .root_path = "/base/api",
     .head = "GET / HTTP/1.1\r\n" HOST TAIL "x-forwarded-prefix: /base/api\r\n"},
    {.method = "GET", .path = "/apix", .route = "/api", .head = "GET /apix HTTP/1.1\r\n" HOST TAIL},
    {.method = "GET",
     .path = "/api/x",
     .route = "/api",
     .keep = true,
     .head = "GET /api/x HTTP/1.1\r\n" HOST TAIL},
    {.method = "GET",
     .path = "/",
     .headers =
         "host=me.example|accept=*/*|connection=keep-alive, x-hop|x-hop=1|te=trailers|keep-alive=5|"
         "x-request-id=forged|cookie=a|cookie=b|expect=100-continue|transfer-encoding=chunked|",
     .head = "GET / HTTP/1.1\r\nhost: me.example\r\naccept: */*\r\ncookie: a\r\ncookie: b\r\n" TAIL
             "x-forwarded-host: me.example\r\n"},
    {.method = "GET",
     .path = "/",
     .headers =
         "x-forwarded-for=1.1.1.1, 2.2.2.2|x-forwarded-proto=https|x-forwarded-host=pub|host=in|",
     .head = "GET / HTTP/1.1\r\nhost: in\r\nx-forwarded-proto: https\r\nx-forwarded-host: pub\r\n"
             "x-request-id: r1\r\nx-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.9\r\n"},
    {.method = "GET",
     .path = "/",
     .client = "[::1]:80",
     .head = "GET / HTTP/1.1\r\n" HOST
             "x-request-id: r1\r\nx-forwarded-for: [::1]\r\nx-forwarded-proto: http\r\n"},
    {.method = "POST",
     .path = "/",
     .head = "POST / HTTP/1.1\r\n" HOST TAIL "content-length: 0\r\n"},
    {.method = "POST",
     .path = "/",
     .len = 12,
     .headers = "content-length=99|",
     .length = 12,
     .head = "POST / HTTP/1.1\r\n" HOST TAIL "content-length: 12\r\n"},
    {.method = "GET",
     .path = "/",
     .len = 3,
     .length = 3,
     .head = "GET / HTTP/1.1\r\n" HOST TAIL "content-length: 3\r\n"},
    {.method = "PUT",
     .path = "/",
     .part = true,
     .len = 3,
     .headers = "content-length=99|",
     .length = 99,
     .head = "PUT / HTTP/1.1\r\n" HOST TAIL "content-length: 99\r\n"},
    {.method = "PUT",
     .path = "/",
     .part = true,
     .chunked = true,
     .head = "PUT / HTTP/1.1\r\n" HOST TAIL "transfer-encoding: chunked\r\n"},
    {.method = "PUT",
     .path = "/",
     .part = true,
     .headers = "content-length=9x|",
     .chunked = true,
     .head = "PUT / HTTP/1.1\r\n" HOST TAIL "transfer-encoding: chunked\r\n"},
    {.method = "PUT",
     .path = "/",
     .part = true,
     .headers = "content-length=99999999999999999999999|",
     .chunked = true,
     .head = "PUT / HTTP/1.1\r\n" HOST TAIL "transfer-encoding: chunked\r\n"},
    /* what would end a line early */
    {.method = "GET",
     .path = "/",
     .headers = "a=b\r\nevil: 1|c d=1|=x|host=h\r\nx: y|",
     .head = "GET / HTTP/1.1\r\n" HOST TAIL},
    {.method = "GET", .path = "/ HTTP/1.1\r\nx: y", .status = 400},
    {.method = "GET", .path = "/", .query = "a b", .status = 400},
    {.method = "G\r\nET", .path = "/", .status = 400},
    {.method = "", .path = "/", .status = 400},
    {.method = "GET", .path = "", .status = 400},
    {.method = "CONNECT", .path = "/", .status = 501},
    {.method = "GET",
     .path = "/",
     .headers = "upgrade=WebSocket|connection=upgrade|",
     .status = 501},
    {.method = "GET",
     .path = "/",
     .headers = "upgrade=h2c|connection=upgrade|",
     .head = "GET / HTTP/1.1\r\n" HOST TAIL},
};

static void put_headers(struct rs_buf *meta, const char *headers)
{
    struct rs_buf b = {0};
    bool in_name = true;

    for (; headers && *headers; headers++) {
        char c = (*headers == '=' && in_name) || *headers == '|' ? '\0' : *headers;

        in_name = c ? in_name : *headers == '|';
        rs_buf_append(&b, &c, 1);
    }
    if (headers)
        rs_field_put(meta, RS_TAG_HEADERS, rs_buf_head(&b), rs_buf_len(&b));
    rs_buf_fini(&b);
}

START_TEST(forwards)
{
    const struct forward_case *c = &cases[_i];
    struct rs_forward_conf conf = {.host = "127.0.0.1:81", .keep_prefix = c->keep};
    struct rs_buf meta = {0}, head = {0}, wanted = {0};
    struct rs_forward fw;
    struct rs_fields f;

    rs_field_put_str(&meta, RS_TAG_HTTP_METHOD, c->method);
    rs_field_put_str(&meta, RS_TAG_PATH, c->path);
    rs_field_put_str(&meta, RS_TAG_QUERY, c->query ? c->query : "");
    rs_field_put_str(&meta, RS_TAG_ROUTE, c->route);
    rs_field_put_str(&meta, RS_TAG_ROOT_PATH, c->root_path);
    rs_field_put_str(&meta, RS_TAG_REQUEST_ID, "r1");
    rs_field_put_str(&meta, RS_TAG_CLIENT, c->client ? c->client : "10.0.0.9:1234");
    rs_field_put_str(&meta, RS_TAG_SCHEME, "http");
    put_headers(&meta, c->headers);
    ck_assert_int_eq(rs_fields_parse(rs_buf_head(&meta), rs_buf_len(&meta), &f, NULL), 0);
    ck_assert_int_eq(rs_forward_http(&head, &f, &conf, !c->part, c->len, &fw), c->status);
    if (!c->status) {
        rs_buf_printf(&wanted, "%s\r\n", c->head);
        ck_assert_str_eq(rs_buf_text(&head), rs_buf_text(&wanted));
        ck_assert_int_eq(fw.chunked, c->chunked);
        ck_assert_uint_eq(fw.length, c->length);
        ck_assert_str_eq(fw.method, c->method);
    }
    rs_buf_fini(&meta);
    rs_buf_fini(&head);
    rs_buf_fini(&wanted);
}
END_TEST

START_TEST(knows_methods)
{
    static const struct {
        const char *method;
        bool idempotent, to_head;
    } methods[] = {{"GET", true, false},   {"HEAD", true, true},    {"PUT", true, false},
                   {"POST", false, false}, {"PATCH", false, false}, {"get", false, false}};
    struct rs_forward_conf conf = {.host = "h"};

    for (size_t i = 0; i < RS_COUNT(methods); i++) {
        struct rs_buf meta = {0}, head = {0};
        struct rs_forward fw;
        struct rs_fields f;

        rs_field_put_str(&meta, RS_TAG_HTTP_METHOD, methods[i].method);
        rs_field_put_str(&meta, RS_TAG_PATH, "/");
        ck_assert_int_eq(rs_fields_parse(rs_buf_head(&meta), rs_buf_len(&meta), &f, NULL), 0);
        ck_assert_int_eq(rs_forward_http(&head, &f, &conf, true, 0, &fw), 0);
        ck_assert_int_eq(fw.idempotent, methods[i].idempotent);
        ck_assert_int_eq(fw.to_head, methods[i].to_head);
        rs_buf_fini(&meta);
        rs_buf_fini(&head);
    }
}
END_TEST

struct call_case {
    const char *method, *args;
    size_t len;
    const char *head, *body, *why;
    enum rs_errc code;
};

#define CALL(m, p, ...)                                                                            \
    {                                                                                              \
        .method = m, .args = p, .len = sizeof(p) - 1, __VA_ARGS__                                  \
    }
#define CALL_HEAD HOST "x-request-id: r1\r\n"
#define WRONG                                                                                      \
    .why =                                                                                         \
        "deployment Files is an HTTP server: call it with a path that begins with / and perhaps "  \
        "a body, as str or bytes",                                                                 \
    .code = RS_INVALID

static const struct call_case calls[] = {
    CALL(NULL, "\x80\5\x8c\2/x\x85}\x86.", .head = "GET /x HTTP/1.1\r\n" CALL_HEAD),
    CALL("__call__", "\x80\5\x8c\2/xC\2[1\x86}\x86.", .body = "[1",
         .head = "POST /x HTTP/1.1\r\n" CALL_HEAD
                 "content-type: application/json\r\ncontent-length: 2\r\n"),
    CALL("put", "\x80\5\x8c\4/x?yC\2hi\x86}\x86.", .body = "hi",
         .head = "PUT /x?y HTTP/1.1\r\n" CALL_HEAD
                 "content-type: application/octet-stream\r\ncontent-length: 2\r\n"),
    CALL("post", "\x80\5\x8c\1/\x85}\x86.",
         .head = "POST / HTTP/1.1\r\n" CALL_HEAD "content-length: 0\r\n"),
    CALL("delete", "\x80\5\x8c\1/N\x86}\x86.", .head = "DELETE / HTTP/1.1\r\n" CALL_HEAD),
    CALL("embed", "\x80\5\x8c\1/\x85}\x86.", .code = RS_NOT_FOUND,
         .why = "an HTTP server has no method 'embed': use get, post, put, patch, delete, head or "
                "options"),
    CALL(NULL, "\x80\5\x8c\1x\x85}\x86.", WRONG),
    CALL(NULL, "\x80\5\x8c\3/ x\x85}\x86.", WRONG),
    CALL(NULL, "\x80\5)}\x86.", WRONG),
    CALL(NULL, "\x80\5N\x85}\x86.", WRONG),
    CALL(NULL, "\x80\5K\1\x85}\x86.", WRONG),
    CALL(NULL, "", WRONG),
};

START_TEST(forwards_calls)
{
    const struct call_case *c = &calls[_i];
    struct rs_forward_conf conf = {.host = "127.0.0.1:81"};
    struct rs_buf meta = {0}, head = {0}, wanted = {0};
    struct rs_error err = {0};
    struct rs_forward fw;
    struct rs_fields f;
    int r;

    rs_field_put_str(&meta, RS_TAG_METHOD, c->method);
    rs_field_put_str(&meta, RS_TAG_DEPLOYMENT, "Files");
    rs_field_put_str(&meta, RS_TAG_REQUEST_ID, "r1");
    rs_field_put_str(&meta, RS_TAG_CONTENT_TYPE, RS_PICKLE_TYPE);
    ck_assert_int_eq(rs_fields_parse(rs_buf_head(&meta), rs_buf_len(&meta), &f, NULL), 0);
    r = rs_forward_call(&head, &f, &conf, c->args, c->len, &fw, &err);
    ck_assert_int_eq(r, c->why ? -1 : 0);
    if (c->why) {
        ck_assert_str_eq(err.msg, c->why);
        ck_assert_int_eq(err.code, c->code);
    } else {
        rs_buf_printf(&wanted, "%s\r\n", c->head);
        ck_assert_str_eq(rs_buf_text(&head), rs_buf_text(&wanted));
        ck_assert_uint_eq(fw.length, c->body ? strlen(c->body) : 0);
        if (c->body)
            ck_assert_mem_eq(fw.body, c->body, fw.length);
    }
    rs_buf_fini(&meta);
    rs_buf_fini(&head);
    rs_buf_fini(&wanted);
}
END_TEST

RS_CHECK_MAIN("forward", tcase_add_loop_test(tc, forwards, 0, RS_COUNT(cases));
              tcase_add_test(tc, knows_methods);
              tcase_add_loop_test(tc, forwards_calls, 0, RS_COUNT(calls));)
