/* What an HTTP server answers, and what a client can bring us to send to it.
 *
 * First byte: A an answer, H an answer to HEAD, F headers of a request, P pickled arguments. */
#include "net/http/answer.h"
#include "net/http/forward.h"
#include "net/http/headers.h"
#include "net/wire/pickle.h"

#include <assert.h>
#include <llhttp.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    int r;
    unsigned status;
    bool done, keep_alive;
    size_t used;
    struct rs_buf headers, body;
};

/* Feeds pieces of `step` bytes, each from memory of just that size. */
static struct result feed(const uint8_t *data, size_t size, size_t step, bool to_head)
{
    struct rs_http_answer_in a = {0};
    struct result res = {0};
    struct rs_error err = {0};

    rs_answer_begin(&a, to_head);
    while (res.used < size && res.r == 0 && !a.done) {
        size_t now = size - res.used < step ? size - res.used : step, used = 0, len;
        char *copy = malloc(now);
        const char *body;

        memcpy(copy, data + res.used, now);
        res.r = rs_answer_feed(&a, copy, now, &used, &err);
        assert(used <= now && (used == now || a.done || res.r < 0));
        body = rs_answer_body(&a, &len);
        assert(len <= now);
        if (len)
            rs_buf_append(&res.body, body, len);
        res.used += used;
        free(copy);
    }
    if (res.r == 0)
        res.r = rs_answer_eof(&a, &err);
    assert(res.r == 0 || err.msg[0]);
    assert(res.r < 0 || (a.done && a.status >= 200));
    res.status = a.status;
    res.done = a.done;
    res.keep_alive = a.keep_alive;
    rs_buf_append(&res.headers, rs_buf_text(&a.headers), rs_buf_len(&a.headers));
    rs_answer_fini(&a);
    return res;
}

static bool same(const struct rs_buf *a, const struct rs_buf *b)
{
    return rs_buf_len(a) == rs_buf_len(b) &&
           memcmp(rs_buf_text(a), rs_buf_text(b), rs_buf_len(a)) == 0;
}

/* However the network cuts it, it is the same answer. */
static void answer(const uint8_t *data, size_t size, bool to_head)
{
    struct result whole = feed(data, size, size + 1, to_head);
    struct result parts = feed(data, size, 1, to_head);
    struct rs_http_headers h =
        rs_http_headers(rs_buf_head(&whole.headers), rs_buf_len(&whole.headers));

    assert(whole.r == parts.r && whole.done == parts.done);
    if (whole.r == 0) {
        assert(whole.status == parts.status && whole.keep_alive == parts.keep_alive);
        assert(whole.used == parts.used);
        assert(same(&whole.headers, &parts.headers) && same(&whole.body, &parts.body));
        while (rs_http_headers_next(&h))
            assert(rs_http_header_ok(h.name, h.value) && !rs_http_hop_by_hop(h.name));
        assert(h.at == h.end);
    }
    rs_buf_fini(&whole.headers);
    rs_buf_fini(&whole.body);
    rs_buf_fini(&parts.headers);
    rs_buf_fini(&parts.body);
}

static int on_complete(llhttp_t *p)
{
    ++*(int *)p->data;
    return HPE_PAUSED;
}

/* Whatever is in the headers, path and query: what is sent is one request, not two. */
static void forward(const uint8_t *data, size_t size)
{
    struct rs_forward_conf conf = {.host = "127.0.0.1:81"};
    struct rs_buf meta = {0}, head = {0};
    llhttp_settings_t settings;
    struct rs_forward fw;
    struct rs_fields f;
    llhttp_t parser;
    int requests = 0;

    if (size > RS_FRAME_META_MAX / 2)
        return;
    rs_field_put_str(&meta, RS_TAG_HTTP_METHOD, "POST");
    rs_field_put(&meta, RS_TAG_PATH, "/x", 2);
    rs_field_put(&meta, RS_TAG_HEADERS, data, size);
    rs_field_put(&meta, RS_TAG_QUERY, data, size < 20 ? size : 0);
    rs_field_put(&meta, RS_TAG_CLIENT, data, size < 20 ? size : 0);
    if (rs_fields_parse(rs_buf_head(&meta), rs_buf_len(&meta), &f, NULL) < 0)
        abort();
    if (rs_forward_http(&head, &f, &conf, true, 0, &fw) == 0) {
        llhttp_settings_init(&settings);
        settings.on_message_complete = on_complete;
        llhttp_init(&parser, HTTP_REQUEST, &settings);
        parser.data = &requests;
        assert(llhttp_execute(&parser, rs_buf_head(&head), rs_buf_len(&head)) == HPE_PAUSED);
        assert(requests == 1);
        assert(llhttp_get_error_pos(&parser) == rs_buf_head(&head) + rs_buf_len(&head));
    }
    rs_buf_fini(&meta);
    rs_buf_fini(&head);
}

static void pickle(const uint8_t *data, size_t size)
{
    struct rs_pickle_arg args[3];
    int n = rs_pickle_args((const char *)data, size, args, RS_COUNT(args));

    for (int i = 0; i < n; i++)
        free(memcpy(malloc(args[i].len + 1), args[i].data ? args[i].data : "", args[i].len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    if (*data == 'A' || *data == 'H')
        answer(data + 1, size - 1, *data == 'H');
    else if (*data == 'F')
        forward(data + 1, size - 1);
    else if (*data == 'P')
        pickle(data + 1, size - 1);
    return 0;
}
