"""Someone who visits the page without a browser, and what they bring."""

import http.client
import io
import json
from urllib.parse import quote

from PIL import Image

SHAPE = 96, 128  # of the photo


def encoded(pixels, kind='PNG', **options):
    """The bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


class Client:
    """Asks a server as the page does.

    Args:
        port (int): Of this machine.
        token (str): Of the session.
    """

    def __init__(self, port, token='a' * 24):
        self.port, self.token = port, token

    def send(self, method, path, body=None, **headers):
        """Returns the status and the body."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def about(self):
        return json.loads(self.send('GET', '/api/about')[1])

    def upload(self, content, name='photo.png'):
        """Returns the status and what the page is told."""
        path = f'/api/{self.token}/photo?name={name}'
        status, body = self.send('POST', path, content)
        return status, json.loads(body)

    def ask(self, what='result', **asked):
        """Returns the lines of the answer; the last one is the result."""
        path = f'/api/{self.token}/{what}'
        _, body = self.send('POST', path, json.dumps(asked))
        return [json.loads(line) for line in body.splitlines()]

    def download(self, kind, **asked):
        path = f'/api/{self.token}/download/{kind}?settings={quote(json.dumps(asked))}'
        return self.send('GET', path)
