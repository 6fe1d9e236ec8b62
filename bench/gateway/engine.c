/* A mock engine that costs next to nothing: vLLM's OpenAI API over keep-alive HTTP/1.1, one epoll loop.
 *
 *   engine PORT [METRICS_FILE]
 *
 * POST anything: a chat completion, of `max_tokens` tokens. Streamed (`"stream":true`): `seed` tokens a second, each
 * an event of vLLM's look and a write of its own; with seed 0 as fast as they are read, a token from each stream in
 * turn. As vLLM does on uvloop, head, role chunk and first token leave in one write, as do the last token, the usage
 * chunk (where `include_usage` asks for it), [DONE] and the last chunk. GET: /health, /v1/models, /metrics.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ID "{\"id\":\"chatcmpl-841f04260e27321d\",\"object\":\"chat.completion.chunk\",\"created\":1795264978,\"model\":\"tiny-qwen\","
#define WORDS 8
enum { FILES = 65536, BODY_LIMIT = 1 << 26 };

struct connection {
    int fd;
    int place;        /* in `streams`; -1 when it streams nothing */
    char *in;         /* what was read of a request that is not whole */
    size_t in_size, in_room;
    char *out;        /* what the socket did not take */
    size_t out_size, out_done;
    bool usage;
    long sent, tokens;
    int64_t began, step; /* ns; step 0: as fast as it is read */
};

static struct connection *by_fd[FILES];
static struct connection *streams[FILES];
static int streaming, at_once, queue;
static char token[WORDS][400], last[WORDS][400], start_of_stream[1200], page[1 << 20];
static int token_size[WORDS], last_size[WORDS], start_size, page_size;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int chunk(char *to, const char *event) {
    return sprintf(to, "%zx\r\n%s\r\n", strlen(event), event);
}

static void prepare(void) {
    static const char *words[WORDS] = {" once", " upon", " a", " time", " there", " was", " an", " engine"};
    char event[600];
    for (int i = 0; i < WORDS; i++) {
        sprintf(event, "data: " ID "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}\n\n", words[i]);
        token_size[i] = chunk(token[i], event);
        sprintf(event, "data: " ID "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null}]}\n\n", words[i]);
        last_size[i] = chunk(last[i], event);
    }
    start_size = sprintf(start_of_stream,
        "HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 12:42:58 GMT\r\nserver: uvicorn\r\n"
        "content-type: text/event-stream; charset=utf-8\r\nvary: Origin\r\ntransfer-encoding: chunked\r\n\r\n");
    start_size += chunk(start_of_stream + start_size,
        "data: " ID "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],\"prompt_token_ids\":null,\"prompt_text\":null}\n\n");
}

static void watch(struct connection *c, int how, bool writable) {
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | (writable ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(queue, how, c->fd, &e);
}

static void stop_stream(struct connection *c) {
    if (c->place < 0) return;
    if (!c->step) at_once--;
    streams[c->place] = streams[--streaming];
    streams[c->place]->place = c->place;
    c->place = -1;
}

static void leave(struct connection *c) {
    stop_stream(c);
    by_fd[c->fd] = NULL;
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

/* False when the connection is gone. */
static bool put(struct connection *c, const char *bytes, size_t size) {
    size_t done = 0;
    if (!c->out_size) {
        ssize_t n = send(c->fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return false;
        done = n < 0 ? 0 : (size_t)n;
    }
    if (done == size) return true;
    if (!c->out_size) watch(c, EPOLL_CTL_MOD, true);
    c->out = realloc(c->out, c->out_size + size - done);
    memcpy(c->out + c->out_size, bytes + done, size - done);
    c->out_size += size - done;
    return true;
}

static bool flush(struct connection *c) {
    while (c->out_done < c->out_size) {
        ssize_t n = send(c->fd, c->out + c->out_done, c->out_size - c->out_done, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN;
        c->out_done += n;
    }
    c->out_done = c->out_size = 0;
    watch(c, EPOLL_CTL_MOD, false);
    return true;
}

static bool put_token(struct connection *c) {
    char text[4096];
    size_t size = 0;
    int word = c->sent % WORDS;
    if (c->sent == 0) {
        memcpy(text, start_of_stream, start_size);
        size = start_size;
    }
    bool over = ++c->sent == c->tokens;
    memcpy(text + size, over ? last[word] : token[word], over ? last_size[word] : token_size[word]);
    size += over ? last_size[word] : token_size[word];
    if (over) {
        if (c->usage) {
            char event[400];
            sprintf(event, "data: " ID "\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"total_tokens\":%ld,\"completion_tokens\":%ld},\"system_fingerprint\":\"vllm-0.32.0-3f26e776\"}\n\n", 19 + c->tokens, c->tokens);
            size += chunk(text + size, event);
        }
        size += chunk(text + size, "data: [DONE]\n\n");
        memcpy(text + size, "0\r\n\r\n", 5);
        size += 5;
        stop_stream(c);
    }
    return put(c, text, size);
}

static const char *value(const char *body, const char *key) {
    const char *at = strstr(body, key);
    if (!at) return NULL;
    at += strlen(key);
    while (*at == ':' || *at == ' ') at++;
    return at;
}

static bool is_true(const char *body, const char *key) {
    const char *at = value(body, key);
    return at && !strncmp(at, "true", 4);
}

static bool answer(struct connection *c, const char *kind, const char *body, size_t size) {
    static char text[sizeof page + 512];
    int head = sprintf(text,
        "HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 12:42:58 GMT\r\nserver: uvicorn\r\ncontent-length: %zu\r\n"
        "content-type: %s\r\nvary: Origin\r\n\r\n", size, kind);
    memcpy(text + head, body, size);
    return put(c, text, head + size);
}

static bool handle(struct connection *c, const char *head, const char *body) {
    if (!strncmp(head, "GET ", 4)) {
        static const char *models =
            "{\"object\":\"list\",\"data\":[{\"id\":\"tiny-qwen\",\"object\":\"model\",\"created\":1795264978,"
            "\"owned_by\":\"vllm\",\"root\":\"tiny-qwen\",\"parent\":null,\"max_model_len\":1024,\"permission\":[]}]}";
        if (!strncmp(head + 4, "/metrics", 8)) return answer(c, "text/plain; version=0.0.4; charset=utf-8", page, page_size);
        if (!strncmp(head + 4, "/v1/models", 10)) return answer(c, "application/json", models, strlen(models));
        return answer(c, "application/json", "", 0);
    }
    const char *tokens = value(body, "\"max_tokens\""), *seed = value(body, "\"seed\"");
    if (!tokens) tokens = value(body, "\"max_completion_tokens\"");
    c->tokens = tokens ? atol(tokens) : 1;
    if (c->tokens < 1) c->tokens = 1;
    if (!is_true(body, "\"stream\"")) {
        char text[1200];
        int size = sprintf(text,
            "{\"id\":\"chatcmpl-bc7f200c60964d28\",\"object\":\"chat.completion\",\"created\":1795264978,\"model\":\"tiny-qwen\","
            "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"once upon a time\",\"refusal\":null,\"annotations\":null,"
            "\"audio\":null,\"function_call\":null,\"reasoning\":null},\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,"
            "\"token_ids\":null,\"routed_experts\":null}],\"service_tier\":null,\"system_fingerprint\":\"vllm-0.32.0-3f26e776\","
            "\"usage\":{\"prompt_tokens\":19,\"total_tokens\":%ld,\"completion_tokens\":%ld,\"prompt_tokens_details\":null,"
            "\"completion_tokens_details\":null},\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"prompt_text\":null,"
            "\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}", 19 + c->tokens, c->tokens);
        return answer(c, "application/json", text, size);
    }
    long rate = seed ? atol(seed) : 0;
    c->usage = is_true(body, "\"include_usage\"");
    c->sent = 0;
    c->step = rate > 0 ? 1000000000LL / rate : 0;
    c->began = now_ns();
    c->place = streaming;
    streams[streaming++] = c;
    if (!c->step) at_once++;
    return put_token(c);
}

static bool read_some(struct connection *c) {
    if (c->in_room - c->in_size < 2048) {
        c->in_room = c->in_room ? c->in_room * 2 : 8192;
        if (c->in_room > BODY_LIMIT) return false;
        c->in = realloc(c->in, c->in_room + 1);
    }
    ssize_t n = recv(c->fd, c->in + c->in_size, c->in_room - c->in_size, 0);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    c->in_size += n;
    c->in[c->in_size] = 0;
    while (c->in_size && c->place < 0) {
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end) return true;
        end += 4;
        char saved = *end;
        *end = 0;
        const char *length = strcasestr(c->in, "\r\ncontent-length:");
        bool chunked = strcasestr(c->in, "\r\ntransfer-encoding:") != NULL;
        *end = saved;
        size_t size = length ? (size_t)atol(length + 17) : 0, have = c->in_size - (end - c->in);
        if (chunked) {
            if (have < 5 || memcmp(c->in + c->in_size - 5, "0\r\n\r\n", 5)) return true;
            size = have;
        }
        if (have < size) return true;
        saved = end[size];
        end[size] = 0;
        bool fine = handle(c, c->in, end);
        end[size] = saved;
        if (!fine) return false;
        c->in_size = have - size;
        memmove(c->in, end + size, c->in_size + 1);
    }
    return true;
}

static void take_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= FILES) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->place = -1;
        by_fd[fd] = c;
        watch(c, EPOLL_CTL_ADD, false);
    }
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prepare();
    if (count > 2) {
        FILE *file = fopen(arguments[2], "r");
        page_size = file ? fread(page, 1, sizeof page, file) : 0;
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) { perror("listen"); return 1; }
    queue = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, found[256];
    epoll_ctl(queue, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int64_t now = now_ns(), next = now + 1000000000LL;
        for (int i = 0; i < streaming;) {
            struct connection *c = streams[i];
            int64_t due = c->began + c->sent * c->step;
            if (c->out_size == 0 && due <= now) {
                if (!put_token(c)) leave(c);
                if (i < streaming && streams[i] != c) continue;
                due += c->step;
            }
            if (c->step && !c->out_size && due < next) next = due;
            i++;
        }
        int64_t wait = at_once ? 0 : next - now_ns();
        if (wait < 0) wait = 0;
        if (at_once) { /* those that were not read wait for EPOLLOUT */
            bool ready = false;
            for (int i = 0; i < streaming && !ready; i++) ready = !streams[i]->step && !streams[i]->out_size;
            if (!ready) wait = next - now > 0 ? next - now : 0;
        }
        struct timespec timeout = {.tv_sec = wait / 1000000000LL, .tv_nsec = wait % 1000000000LL};
        int n = epoll_pwait2(queue, found, 256, &timeout, NULL);
        for (int i = 0; i < n; i++) {
            struct connection *c = found[i].data.ptr;
            if (!c) { take_all(listener); continue; }
            bool fine = true;
            if (found[i].events & EPOLLOUT) fine = flush(c);
            if (fine && (found[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))) fine = read_some(c);
            if (fine && (found[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) fine = false;
            if (!fine) leave(c);
        }
    }
}
