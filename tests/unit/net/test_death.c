/* Replicas that die with requests: which go on, which fail, and what their clients read. */
#include "net/router/starts.h"

#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

#include <stdatomic.h>
#include <sys/mman.h>

#define POST(path) "POST " path " HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"

static struct world w;
static struct fake a, b;
static struct client c, c2;

static void begin(void)
{
    memset(&c, 0, sizeof(c));
    memset(&c2, 0, sizeof(c2));
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    a.fd = b.fd = a.body_fd = b.body_fd = c.fd = c2.fd = -1;
    world_begin(&w, NULL);
    world_routes(&w);
}

static void end(void)
{
    client_close(&c);
    client_close(&c2);
    world_end(&w);
    fake_end(&a);
    fake_end(&b);
}

/* What may have had an effect is not run twice, and its client reads what happened. */
START_TEST(death_ends_what_was_started_only)
{
    begin();
    world_routes_with(
        &w, (struct rs_route_deployment){.max_ongoing = 1, .max_queued = -1, .retry_after_s = -1});
    fake_attach(&w, &a, "front", "r1", true);
    client_open(&c, &w);
    client_open(&c2, &w);
    client_send(&c, POST("/1"));
    fake_expect(&a, RS_MSG_REQUEST);
    client_get(&c2, "/2");
    wait_queued(&w, "front", 1);
    fake_end(&a);
    expect_event(&w, "gone", "r1");
    rs_dataplane_detach(w.dp, "r1", "its process was killed by SIGKILL (9)");
    client_expect(&c, 502, NULL);
    ck_assert_str_eq(client_header(&c, "content-type"), "text/plain; charset=utf-8");
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&c.body), client_header(&c, "x-request-id")));
    ck_assert_ptr_nonnull(
        strstr(rs_buf_text(&c.body), "replica r1 of deployment 'front' (application 'app') died"));
    ck_assert_ptr_nonnull(
        strstr(rs_buf_text(&c.body), "its process was killed by SIGKILL (9); it was not run "));
    fake_attach(&w, &b, "front", "r2", true);
    fake_expect(&b, RS_MSG_REQUEST);
    ck_assert_str_eq(fake_text(&b, RS_TAG_PATH), "/2");
    fake_ok(&b, "two");
    client_expect(&c2, 200, "two");
    end();
}
END_TEST

static const char *const safe_requests[] = {
    "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "OPTIONS /1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /1 HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbody",
};

/* What does no harm twice is run again, once for each replica that dies with it, but not for ever. */
START_TEST(death_and_what_is_safe)
{
    begin();
    client_open(&c, &w);
    client_send(&c, safe_requests[_i]);
    for (int run = 0; run < 5; run++) {
        char id[8];

        snprintf(id, sizeof(id), "r%d", run);
        fake_attach(&w, &a, "front", id, true);
        fake_expect(&a, RS_MSG_REQUEST);
        ck_assert_str_eq(fake_text(&a, RS_TAG_PATH), "/1");
        ck_assert_uint_eq(a.h.body_len, _i == 2 ? 4 : 0);
        fake_end(&a);
        expect_event(&w, "gone", id);
        rs_dataplane_detach(w.dp, id, "its process exited with status 3");
    }
    client_expect(&c, 502, NULL);
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&c.body),
                                 "its process exited with status 3; it was not run again: "
                                 "it was run too often already"));
    end();
}
END_TEST

/* Nobody says how it ended: the client is told what is known, and does not wait for ever. */
START_TEST(death_without_a_reason)
{
    begin();
    fake_attach(&w, &a, "front", "r1", true);
    client_open(&c, &w);
    client_send(&c, POST("/1"));
    fake_expect(&a, RS_MSG_REQUEST);
    fake_end(&a);
    client_expect(&c, 502, NULL);
    ck_assert_ptr_nonnull(strstr(rs_buf_text(&c.body), "the peer closed the connection"));
    end();
}
END_TEST

/* Once something went to the client there is no second run, and no clean end either. */
START_TEST(death_in_the_middle_of_an_answer)
{
    begin();
    fake_attach(&w, &a, "front", "r1", true);
    client_open(&c, &w);
    client_get(&c, "/1");
    fake_expect(&a, RS_MSG_REQUEST);
    fake_answer(&a, 200, "content-type: text/plain\n", "half", 4, 0);
    client_read_head(&c);
    ck_assert_int_eq(client_read_chunk(&c), 4);
    fake_end(&a);
    ck_assert_int_eq(client_read_chunk(&c), -1);
    fake_attach(&w, &b, "front", "r2", true);
    fake_sync(&w, &b, "r2"); /* and it has got nothing else */
    end();
}
END_TEST

/* --- replicas that tell what they begin -------------------------------------------------------- */

static void say(struct fake *f, enum rs_msg type, const char *json)
{
    struct rs_buf meta = {0};

    rs_buf_puts(&meta, json);
    fake_send(f, type, 0, 0, &meta, NULL, 0);
    rs_buf_fini(&meta);
}

/* A replica that shares memory with the node, and what it shares: two rows of RS_STARTS. */
static _Atomic uint64_t *attach_telling(struct fake *f, const char *id)
{
    rs_auto(rs_json_decrefp) json_t *init = json_object();
    void *at;

    fake_attach(&w, f, "front", id, false);
    say(f, RS_MSG_HELLO, "{\"starts\": true}");
    expect_event(&w, "HELLO", id);
    rs_dataplane_tell(w.dp, id, RS_MSG_INIT, 0, init);
    fake_expect(f, RS_MSG_INIT);
    ck_assert_uint_eq(f->h.fds, 1);
    ck_assert_int_eq(ftruncate(f->body_fd, 0), -1); /* it is not the replica's to take away */
    at = mmap(NULL, RS_STARTS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f->body_fd, 0);
    ck_assert_ptr_ne(at, MAP_FAILED);
    say(f, RS_MSG_READY, "{\"starts\": true}");
    expect_event(&w, "READY", id);
    rs_dataplane_admit(w.dp, id);
    return at;
}

enum { MANY = 4 };

/* Requests that the replica has read, all of them. */
static void open_many(struct client *clients)
{
    for (int i = 0; i < MANY; i++) {
        client_open(&clients[i], &w);
        client_send(&clients[i], POST("/"));
        fake_expect(&a, RS_MSG_REQUEST);
        ck_assert_uint_eq(a.h.stream, 2 + 2 * (unsigned)i);
    }
}

/* It has begun the third; the others go on, in their order. */
START_TEST(what_it_had_not_begun_goes_on)
{
    struct client clients[MANY];
    _Atomic uint64_t *starts;

    begin();
    starts = attach_telling(&a, "r1");
    open_many(clients);
    starts[6 / 2] = 6;
    fake_end(&a);
    expect_event(&w, "gone", "r1");
    rs_dataplane_detach(w.dp, "r1", "its process was killed by SIGKILL (9)");
    client_expect(&clients[2], 502, NULL);
    fake_attach(&w, &b, "front", "r2", true);
    for (int i = 0; i < MANY; i++) {
        if (i == 2)
            continue;
        fake_expect(&b, RS_MSG_REQUEST);
        ck_assert_str_eq(b.body, "body");
        fake_ok(&b, "done");
        client_expect(&clients[i], 200, "done");
    }
    for (int i = 0; i < MANY; i++)
        client_close(&clients[i]);
    munmap((void *)(uintptr_t)starts, RS_STARTS_SIZE);
    end();
}
END_TEST

/* Told to take no more, it keeps what it has begun and is told which others it need not begin. */
START_TEST(what_a_retired_one_had_not_begun_is_taken_back)
{
    struct client clients[MANY];
    _Atomic uint64_t *starts;

    begin();
    starts = attach_telling(&a, "r1");
    open_many(clients);
    starts[6 / 2] = 6;
    rs_dataplane_retire(w.dp, "r1");
    for (int i = 0; i < MANY - 1; i++) {
        fake_expect(&a, RS_MSG_CANCEL);
        ck_assert_uint_eq(starts[RS_STARTS + a.h.stream / 2], a.h.stream);
    }
    ck_assert_uint_eq(starts[RS_STARTS + 6 / 2], 0);
    fake_attach(&w, &b, "front", "r2", true);
    for (int i = 0; i < MANY; i++) {
        if (i == 2)
            continue;
        fake_expect(&b, RS_MSG_REQUEST);
        fake_ok(&b, "there");
        client_expect(&clients[i], 200, "there");
    }
    a.h.stream = 6;
    fake_ok(&a, "here");
    client_expect(&clients[2], 200, "here");
    expect_event(&w, "idle", "r1");
    for (int i = 0; i < MANY; i++)
        client_close(&clients[i]);
    munmap((void *)(uintptr_t)starts, RS_STARTS_SIZE);
    end();
}
END_TEST

/* It marked one as begun, and then saw that the node takes it back, which saw the mark: it says so. */
START_TEST(what_both_had_left_to_the_other_goes_on)
{
    struct client clients[MANY];
    _Atomic uint64_t *starts;

    begin();
    starts = attach_telling(&a, "r1");
    open_many(clients);
    for (int i = 0; i < MANY; i++)
        starts[1 + i] = 2 + 2 * (uint64_t)i;
    rs_dataplane_retire(w.dp, "r1");
    starts[6 / 2] = 6 - 1;
    fake_send(&a, RS_MSG_CANCEL, 0, 6, NULL, NULL, 0);
    fake_send(&a, RS_MSG_CANCEL, 0, 600, NULL, NULL, 0); /* unknown, or known no more */
    fake_attach(&w, &b, "front", "r2", true);
    fake_expect(&b, RS_MSG_REQUEST);
    fake_ok(&b, "there");
    client_expect(&clients[2], 200, "there");
    for (int i = 0; i < MANY; i++) {
        if (i == 2)
            continue;
        a.h.stream = 2 + 2 * (unsigned)i;
        fake_ok(&a, "here");
        client_expect(&clients[i], 200, "here");
    }
    expect_event(&w, "idle", "r1");
    for (int i = 0; i < MANY; i++)
        client_close(&clients[i]);
    munmap((void *)(uintptr_t)starts, RS_STARTS_SIZE);
    end();
}
END_TEST

RS_CHECK_MAIN("death", tcase_add_test(tc, death_ends_what_was_started_only);
              tcase_add_loop_test(tc, death_and_what_is_safe, 0, RS_COUNT(safe_requests));
              tcase_add_test(tc, death_without_a_reason);
              tcase_add_test(tc, death_in_the_middle_of_an_answer);
              tcase_add_test(tc, what_it_had_not_begun_goes_on);
              tcase_add_test(tc, what_a_retired_one_had_not_begun_is_taken_back);
              tcase_add_test(tc, what_both_had_left_to_the_other_goes_on);)
