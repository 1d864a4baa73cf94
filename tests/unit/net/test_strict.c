/* What of a client's bytes may go on, and what is refused; in a real server: test_wild.py, with the same
 * corpus. */
#include "core/base/buf.h"
#include "net/http/strict.h"

#include "tests/unit/check_main.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

enum { HEAD_MAX = 24 << 10 };

struct outcome {
    size_t went_on;
    unsigned status; /* 0: nothing was refused */
    enum rs_strict_state state;
};

/* The bytes as they come in pieces of `piece`, at most; what may not go on yet is kept. */
static struct outcome scan(const char *data, size_t n, size_t piece)
{
    struct rs_strict s;
    struct outcome o = {0};
    size_t there = 0;

    rs_strict_init(&s, HEAD_MAX);
    while (there < n && s.state != RS_STRICT_BAD && s.state != RS_STRICT_UPGRADE) {
        char *copy;

        there = there + piece < n ? there + piece : n;
        /* of just this size, so that a sanitizer sees what is read behind it */
        copy = malloc(there - o.went_on + 1);
        memcpy(copy, data + o.went_on, there - o.went_on);
        o.went_on += rs_strict_scan(&s, copy, there - o.went_on);
        free(copy);
    }
    o.state = s.state;
    o.status = s.state == RS_STRICT_BAD ? s.status : 0;
    ck_assert(!o.status == !s.why);
    return o;
}

static const struct {
    const char *data;
    size_t went_on;
    unsigned status;
    enum rs_strict_state state;
} cases[] = {
#define GET "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
#define POST "POST / HTTP/1.1\r\nHost: x\r\n"
    {"", 0, 0, RS_STRICT_HEAD},
    {"GET / HT", 0, 0, RS_STRICT_HEAD},
    {"GET / HTTP/1.1\r\nHost: x\r\n\r", 0, 0, RS_STRICT_HEAD},
    {GET, 27, 0, RS_STRICT_HEAD},
    {GET GET "G", 54, 0, RS_STRICT_HEAD},
    {GET "GET  /", 27, 0, RS_STRICT_HEAD},
    {GET "GET  / HTTP/1.1\r\n", 27, 400, RS_STRICT_BAD},
    {POST "Content-Length: 3\r\n\r\nab", 49, 0, RS_STRICT_BODY},
    {POST "Content-Length: 3\r\n\r\nabcG", 50, 0, RS_STRICT_HEAD},
    {POST "Content-Length: 3\r\n\r\nabc\n", 50, 400, RS_STRICT_BAD},
    {POST "Content-Length: 0\r\n\r\n", 47, 0, RS_STRICT_HEAD},
    {POST "Transfer-Encoding: chunked\r\n\r\n", 56, 0, RS_STRICT_CHUNK},
    {POST "Transfer-Encoding: chunked\r\n\r\n3", 56, 0, RS_STRICT_CHUNK},
    {POST "Transfer-Encoding: chunked\r\n\r\n3\r\nab", 61, 0, RS_STRICT_CHUNK_DATA},
    {POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc", 62, 0, RS_STRICT_CHUNK_END},
    {POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r", 62, 0, RS_STRICT_CHUNK_END},
    {POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n", 62, 400, RS_STRICT_BAD},
    {POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", 67, 0, RS_STRICT_TRAILER},
    {POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 69, 0, RS_STRICT_HEAD},
    {POST "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\nGET ", 67, 0, RS_STRICT_HEAD},
    {"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\n\r\n\1\2\n", 47, 0, RS_STRICT_UPGRADE},
    {"\x16\x03", 0, 400, RS_STRICT_BAD}, /* TLS: its line would never end */
    {"G\rx", 0, 400, RS_STRICT_BAD},
};

START_TEST(cases_of_the_table)
{
    size_t n = strlen(cases[_i].data);

    for (size_t piece = 1; piece <= n + 1; piece++) {
        struct outcome o = scan(cases[_i].data, n, piece);

        ck_assert_uint_eq(o.went_on, cases[_i].went_on);
        ck_assert_uint_eq(o.status, cases[_i].status);
        ck_assert_int_eq(o.state, cases[_i].state);
    }
}
END_TEST

static void read_file(const char *dir, const char *name, struct rs_buf *ret)
{
    char path[600];
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    while ((n = fread(rs_buf_reserve(ret, 4096), 1, 4096, f)) > 0)
        rs_buf_commit(ret, n);
    fclose(f);
}

/* Each file of the corpus has the status of its name; however it is cut into pieces, the same bytes go
 * on, and what is refused is refused. */
START_TEST(corpus)
{
    char dir[512];
    struct dirent *e;
    unsigned files = 0;
    DIR *d;

    snprintf(dir, sizeof(dir), "%s/testdata/wild", getenv("RSERVE_SOURCE"));
    d = opendir(dir);
    ck_assert_ptr_nonnull(d);
    while ((e = readdir(d))) {
        unsigned status = (unsigned)strtoul(e->d_name, NULL, 10);
        struct rs_buf b = {0};
        struct outcome whole;

        if (e->d_name[0] == '.')
            continue;
        read_file(dir, e->d_name, &b);
        whole = scan(rs_buf_head(&b), rs_buf_len(&b), rs_buf_len(&b));
        ck_assert_msg(whole.status == (status < 400 || status == 405 ? 0 : status), "%s: %u",
                      e->d_name, whole.status);
        if (!whole.status)
            ck_assert_msg(whole.went_on == rs_buf_len(&b), "%s", e->d_name);
        for (size_t piece = 1; piece < 40; piece++) {
            struct outcome o = scan(rs_buf_head(&b), rs_buf_len(&b), piece);

            /* of two faults the one that is seen first may differ, that there is one may not */
            ck_assert_msg(!o.status == !whole.status && o.went_on == whole.went_on,
                          "%s in pieces of %zu", e->d_name, piece);
        }
        files++;
        rs_buf_fini(&b);
    }
    closedir(d);
    ck_assert_uint_gt(files, 150);
}
END_TEST

/* Random requests, random faults, random pieces: what goes on does not depend on the pieces. */
START_TEST(pieces_do_not_matter)
{
    static const char *const parts[] = {GET,
                                        POST,
                                        "Content-Length: 5\r\n",
                                        "Transfer-Encoding: chunked\r\n",
                                        "\r\n",
                                        "hello",
                                        "5\r\n",
                                        "0\r\n",
                                        "X: y\r\n",
                                        " z\r\n",
                                        "\n",
                                        "\r",
                                        "5;a=b\r\n",
                                        "Host: x\r\n",
                                        "Upgrade: websocket\r\n",
                                        "GET /x HTTP/1.0\r\n",
                                        ":",
                                        "\t"};
    unsigned seed = 20;
    unsigned refused = 0;

    for (int round = 0; round < 20000; round++) {
        struct rs_buf b = {0};
        struct outcome whole, cut;
        int n = 1 + rand_r(&seed) % 12;

        for (int i = 0; i < n; i++)
            rs_buf_puts(&b, parts[(unsigned)rand_r(&seed) % (sizeof(parts) / sizeof(*parts))]);
        whole = scan(rs_buf_head(&b), rs_buf_len(&b), rs_buf_len(&b));
        cut = scan(rs_buf_head(&b), rs_buf_len(&b), 1 + (size_t)rand_r(&seed) % 9);
        ck_assert_uint_eq(whole.went_on, cut.went_on);
        ck_assert_int_eq(!whole.status, !cut.status);
        refused += whole.status != 0;
        rs_buf_fini(&b);
    }
    ck_assert_uint_gt(refused, 1000);
    ck_assert_uint_lt(refused, 20000);
}
END_TEST

RS_CHECK_MAIN("strict",
              tcase_add_loop_test(tc, cases_of_the_table, 0, (int)(sizeof(cases) / sizeof(*cases)));
              tcase_add_test(tc, corpus); tcase_add_test(tc, pieces_do_not_matter);)
