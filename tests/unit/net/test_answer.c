/* Answers of HTTP servers, good and bad, whole and in pieces. */
#include "net/http/answer.h"

#include "net/http/headers.h"
#include "tests/unit/check_main.h"

#include <string.h>

struct answer_case {
    const char *bytes;
    unsigned status;
    const char *headers; /* name=value|... */
    const char *body;
    bool keep, eof, head;   /* eof: the end of the connection ends it */
    const char *left, *why; /* what follows the answer; why it is refused */
};

#define OK "HTTP/1.1 200 OK\r\n"

static const struct answer_case cases[] = {
    {.bytes = OK "Content-Length: 2\r\nX-A:  b c \t\r\n\r\nhi",
     .status = 200,
     .headers = "content-length=2|x-a=b c|",
     .body = "hi",
     .keep = true},
    {.bytes = OK
     "Transfer-Encoding: chunked\r\nA: 1\r\n\r\n2\r\nhi\r\n3;x=y\r\n, u\r\n0\r\nT: r\r\n\r\n",
     .status = 200,
     .headers = "a=1|",
     .body = "hi, u",
     .keep = true},
    {.bytes = OK "\r\nuntil the end",
     .status = 200,
     .headers = "",
     .body = "until the end",
     .eof = true},
    {.bytes =
         OK "Connection: Close, X-Gone\r\nX-Gone: 1\r\nx-goner: 2\r\nContent-Length: 0\r\n\r\n",
     .status = 200,
     .headers = "x-goner=2|content-length=0|",
     .body = ""},
    {.bytes = "HTTP/1.0 404 Not Found\r\nContent-Length: 1\r\n\r\nx",
     .status = 404,
     .headers = "content-length=1|",
     .body = "x"},
    {.bytes = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: "
              "timeout=5\r\nContent-Length: 1\r\n\r\nx",
     .status = 200,
     .headers = "content-length=1|",
     .body = "x",
     .keep = true},
    {.bytes =
         "HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" OK
         "Content-Length: 1\r\n\r\nx",
     .status = 200,
     .headers = "content-length=1|",
     .body = "x",
     .keep = true},
    {.bytes = "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
     .status = 204,
     .headers = "x=y|",
     .body = "",
     .keep = true},
    {.bytes = "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
     .status = 304,
     .headers = "content-length=9|",
     .body = "",
     .keep = true},
    {.bytes = OK "Content-Length: 7\r\n\r\n",
     .status = 200,
     .headers = "content-length=7|",
     .body = "",
     .keep = true,
     .head = true},
    {.bytes = OK "Transfer-Encoding: chunked\r\n\r\n",
     .status = 200,
     .headers = "",
     .body = "",
     .keep = true,
     .head = true},
    {.bytes = OK "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
     .status = 200,
     .headers = "set-cookie=a=1|set-cookie=b=2|content-length=0|",
     .body = "",
     .keep = true},
    {.bytes = OK "Empty:\r\nContent-Length: 0\r\n\r\n",
     .status = 200,
     .headers = "empty=|content-length=0|",
     .body = "",
     .keep = true},
    {.bytes = OK "Content-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n",
     .status = 200,
     .headers = "content-length=1|",
     .body = "x",
     .keep = true,
     .left = "HTTP/1.1 200 OK\r\n"},
    /* refused */
    {.bytes = OK "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi", .why = "not HTTP"},
    {.bytes = OK "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
     .why = "not HTTP"},
    {.bytes = OK "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
     .why = "not HTTP"},
    {.bytes = OK "Content-Length: -1\r\n\r\n", .why = "not HTTP"},
    {.bytes = OK "Content-Length: 1x\r\n\r\n", .why = "not HTTP"},
    {.bytes = OK "Content-Length: 99999999999999999999\r\n\r\n", .why = "not HTTP"},
    {.bytes = OK "Transfer-Encoding: chunked\r\n\r\nzz\r\n", .why = "not HTTP"},
    {.bytes = OK "Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\n", .why = "not HTTP"},
    {.bytes = OK "Transfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n", .why = "not HTTP"},
    {.bytes = OK "Bad Header: 1\r\n\r\n", .why = "name is none"},
    {.bytes = OK "Content-Length : 1\r\n\r\nx", .why = ""},
    {.bytes = OK "Bad\x01: 1\r\n\r\n", .why = "not HTTP"},
    {.bytes =
         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
     .why = "a change of protocol"},
    {.bytes = "HTTP/1.1 20 OK\r\n\r\n", .why = "below 100"},
    {.bytes = "HTTP/3.0 200 OK\r\n\r\n", .why = "not HTTP"},
    {.bytes = "SSH-2.0-OpenSSH_9.2\r\n", .why = "not HTTP"},
    {.bytes = "GET / HTTP/1.1\r\n\r\n", .why = "not HTTP"},
    {.bytes = "\x16\x03\x01\x02", .why = "not HTTP"},
    {.bytes = "", .eof = true, .why = "without an answer"},
    {.bytes = OK "Content-Le", .eof = true, .why = "without an answer"},
    {.bytes = OK "Content-Length: 5\r\n\r\nhi", .eof = true, .why = "within its answer"},
    {.bytes = OK "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
     .eof = true,
     .why = "within its answer"},
};

static void check_headers(const struct rs_http_answer_in *a, const char *wanted)
{
    struct rs_buf text = {0};
    struct rs_http_headers h = rs_http_headers(rs_buf_head(&a->headers), rs_buf_len(&a->headers));

    while (rs_http_headers_next(&h))
        rs_buf_printf(&text, "%s=%s|", h.name, h.value);
    ck_assert_str_eq(rs_buf_text(&text), wanted);
    ck_assert_ptr_eq(h.at, h.end);
    rs_buf_fini(&text);
}

/* Feeds `step` bytes at a time, each from memory of exactly that size. */
static void feed(const struct answer_case *c, size_t step)
{
    struct rs_http_answer_in a = {0};
    struct rs_error err = {0};
    struct rs_buf body = {0};
    size_t len = strlen(c->bytes), at = 0, used, n;
    const char *part;
    int r = 0;

    rs_answer_begin(&a, !c->head); /* used again, as a kept exchange is */
    rs_answer_begin(&a, c->head);
    while (at < len && r == 0 && !a.done) {
        size_t now = len - at < step ? len - at : step;
        char *copy = malloc(now);

        memcpy(copy, c->bytes + at, now);
        r = rs_answer_feed(&a, copy, now, &used, &err);
        part = rs_answer_body(&a, &n);
        if (n)
            rs_buf_append(&body, part, n);
        at += used;
        free(copy);
    }
    if (r == 0 && c->eof)
        r = rs_answer_eof(&a, &err);
    if (c->why) {
        ck_assert_msg(r < 0, "step %zu: accepted", step);
        ck_assert_msg(strstr(err.msg, c->why) != NULL, "step %zu: %s", step, err.msg);
    } else {
        ck_assert_msg(r == 0, "step %zu: %s", step, err.msg);
        ck_assert(a.done);
        ck_assert_uint_eq(a.status, c->status);
        ck_assert_str_eq(rs_buf_text(&body), c->body);
        ck_assert_int_eq(a.keep_alive, c->keep);
        ck_assert_str_eq(c->bytes + at, c->left ? c->left : "");
        check_headers(&a, c->headers);
    }
    rs_buf_fini(&body);
    rs_answer_fini(&a);
}

START_TEST(parses)
{
    for (size_t step = 1; step < 40; step++)
        feed(&cases[_i], step);
    feed(&cases[_i], 10000);
}
END_TEST

START_TEST(bounds_headers)
{
    struct rs_http_answer_in a = {0};
    struct rs_error err = {0};
    char line[1000];
    size_t used;
    int r;

    memset(line, 'a', sizeof(line));
    rs_answer_begin(&a, false);
    r = rs_answer_feed(&a, OK "X: ", sizeof(OK "X: ") - 1, &used, &err);
    for (int i = 0; i < 100 && r == 0; i++)
        r = rs_answer_feed(&a, line, sizeof(line), &used, &err);
    ck_assert_int_eq(r, -1);
    ck_assert_str_eq(err.msg, "the answer has a header over 64 KiB");

    rs_answer_begin(&a, false); /* nor by interim answers without end */
    r = 0;
    for (int i = 0; i < 100000 && r == 0; i++)
        r = rs_answer_feed(&a, "HTTP/1.1 100 C\r\nA: b\r\n\r\n", 24, &used, &err);
    ck_assert_int_eq(r, -1);
    rs_answer_fini(&a);
}
END_TEST

struct token_case {
    const char *list, *token;
    bool has;
};

static const struct token_case tokens[] = {
    {"close", "close", true},
    {"Close", "close", true},
    {"keep-alive, close", "close", true},
    {"a,b , c", "b", true},
    {"closed", "close", false},
    {"", "close", false},
    {"a;q=1,websocket", "websocket", true},
    {",,, x", "x", true},
    {"x y", "y", false},
};

START_TEST(finds_tokens)
{
    ck_assert_int_eq(rs_http_has_token(tokens[_i].list, tokens[_i].token), tokens[_i].has);
}
END_TEST

START_TEST(walks_broken_headers)
{
    static const struct {
        const char *data;
        size_t len;
        int pairs;
    } broken[] = {{"", 0, 0},       {"a", 1, 0},         {"a\0", 2, 0}, {"a\0b", 3, 0},
                  {"a\0b\0", 4, 1}, {"a\0b\0c\0", 6, 1}, {"\0\0", 2, 1}};

    for (size_t i = 0; i < RS_COUNT(broken); i++) {
        char *copy = malloc(broken[i].len + 1);
        struct rs_http_headers h;
        int n = 0;

        memcpy(copy, broken[i].data, broken[i].len);
        for (h = rs_http_headers(copy, broken[i].len); rs_http_headers_next(&h);)
            n++;
        ck_assert_int_eq(n, broken[i].pairs);
        free(copy);
    }
    ck_assert_ptr_null(rs_http_header(NULL, 0, "x"));
}
END_TEST

RS_CHECK_MAIN("answer", tcase_add_loop_test(tc, parses, 0, RS_COUNT(cases));
              tcase_add_test(tc, bounds_headers);
              tcase_add_loop_test(tc, finds_tokens, 0, RS_COUNT(tokens));
              tcase_add_test(tc, walks_broken_headers);)
