"""The sample notice board as a small web server, for use without `taskgate dev`, which serves one too.

    python sample_site.py [port]       # then SAMPLE_SITE_URL=http://127.0.0.1:PORT/sample-site
"""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BOARDS = {"volunteer": "봉사 공지", "job": "취업 공지", "scholarship": "장학금 공지"}
PAGES, PER_PAGE = 3, 10


def render(slug, number):
    rows = "\n".join(
        f'  <li class="notice" data-id="{slug}-{item}"><a href="/sample-site/{slug}/items/{item}">'
        f"{BOARDS[slug]} {item}</a></li>"
        for item in range((number - 1) * PER_PAGE + 1, number * PER_PAGE + 1))
    return (f'<!doctype html>\n<html lang="ko"><head><meta charset="utf-8"><title>{BOARDS[slug]} {number}</title></head>\n'
            f'<body><main data-pages="{PAGES}"><ul>\n{rows}\n</ul></main></body></html>\n')


class Board(BaseHTTPRequestHandler):
    def do_GET(self):
        parts = self.path.strip("/").split("/")
        known = (len(parts) == 3 and parts[0] == "sample-site" and parts[1] in BOARDS
                 and parts[2] in [str(number) for number in range(1, PAGES + 1)])
        page = render(parts[1], int(parts[2])).encode() if known else b"not found\n"
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_):
        pass


def main(port="8080", host="127.0.0.1"):
    server = ThreadingHTTPServer((host, int(port)), Board)
    print(f"http://{host}:{server.server_port}/sample-site", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
