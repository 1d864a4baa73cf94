/* Replicas that die with requests: which go on, which fail, and what their clients read. */
#include "tests/unit/net/dataplane_world.h"

#include "tests/unit/check_main.h"

#define POST(path) "POST " path " HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"

static struct world w;
static struct fake a, b;
static struct client c;

static void begin(void)
{
    memset(&c, 0, sizeof(c));
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    a.fd = b.fd = a.body_fd = b.body_fd = c.fd = -1;
    world_begin(&w, NULL);
    world_routes(&w);
}

static void end(void)
{
    client_close(&c);
    world_end(&w);
    fake_end(&a);
    fake_end(&b);
}

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

RS_CHECK_MAIN("death", tcase_add_loop_test(tc, death_and_what_is_safe, 0, RS_COUNT(safe_requests));
              tcase_add_test(tc, death_without_a_reason);
              tcase_add_test(tc, death_in_the_middle_of_an_answer);)
