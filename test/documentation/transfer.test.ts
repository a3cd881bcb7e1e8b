// The example of docs/transfer.md, compiled and run: over sockets of a server, and over a socket that a route has detached.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import net, { type AddressInfo, type Socket } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import duplex from '../../lib/index.ts'
import * as transfer from '../../lib/transfer/index.ts'
import { MAX_HEAD_SIZE, requestHeads } from '../conformance/request-heads.ts'
import { LIMITS, requests } from '../conformance/requests.ts'
import { splitAt } from '../support/feed.ts'
import { type Wire, dial, resolvers } from '../support/wire.ts'

const page = readFileSync(join(__dirname, '../../docs/transfer.md'), 'utf8')
const [server, route, ...others] = [...page.matchAll(/^```js\n(.*?)^```/gms)].map(([, code]) => code)
t.strictSame(others, [], 'each snippet has a test')

type Serve = (socket: Socket) => Promise<void>

/** Runs the snippet of the server, with the limits of the tables. */
function makeServe (): Serve {
  const given = { pipeline, ...transfer }
  const imported = [...server.matchAll(/^import \{ (.*) \} from/gm)].flatMap(([, names]) => names.split(', '))
  t.strictSame(imported.filter((name) => !Object.hasOwn(given, name)), [], 'what it imports exists')
  const code = server.replaceAll(/^import .*$/gm, '')
    .replaceAll('new RequestHeadReader()', `new RequestHeadReader(${MAX_HEAD_SIZE})`)
    .replace(/\{ maxTrailerSize: .*? \}/, JSON.stringify(LIMITS))
  // eslint-disable-next-line no-new-func
  return new Function(...Object.keys(given), `${code}\nreturn serve`)(...Object.values(given))
}

const serve = makeServe()

async function listen (onSocket: (serving: Promise<void>) => void): Promise<number> {
  const listener = net.createServer((socket) => onSocket(serve(socket)))
  t.teardown(() => listener.close())
  await once(listener.listen(0, '127.0.0.1'), 'listening')
  return (listener.address() as AddressInfo).port
}

/** Sends bytes to the server on a connection of their own. */
async function dialServer (t: Test, port: number, sockets: { next: (serving: Promise<void>) => void }): Promise<{ wire: Wire, serving: Promise<string | null> }> {
  const { promise, resolve } = resolvers<Promise<string | null>>()
  // What an error of the server was, by its code.
  sockets.next = (serving) => { resolve(serving.then(() => null, (error) => error.code)) }
  const wire = await dial('tcp', { port, host: '127.0.0.1' })
  t.teardown(() => wire.socket.destroy())
  return { wire, serving: promise.then((serving) => serving) }
}

t.test('over the sockets of a server, what the tables of conformance/ have', async (t) => {
  const sockets = { next: (_serving: Promise<void>) => {} }
  const port = await listen((serving) => sockets.next(serving))
  const NEXT = 'POST /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnext'
  for (const [rule, name, bytes, outcome] of requests) {
    await t.test(`${rule} ${name}`, async (t) => {
      const { wire, serving } = await dialServer(t, port, sockets)
      for (const part of splitAt(bytes + NEXT, bytes.length / 2)) wire.send(part)
      const code = outcome.accepted ? null : outcome.ours === undefined ? outcome.code : outcome.ours
      if (code !== null) {
        t.equal(await serving, code)
        await wire.ended
        return
      }
      const response = await wire.response()
      t.match(response, { statusCode: 200, body: outcome.accepted ? outcome.content : 'hello' })
      // A response to HTTP/1.0 has no length here, and ends with the connection.
      const isKept = !outcome.accepted || (outcome.persistent && !bytes.includes('HTTP/1.0\r\n'))
      t.equal(response.fields.connection, isKept ? 'keep-alive' : 'close')
      if (isKept) t.match(await wire.response(), { statusCode: 200, body: 'next', fields: { connection: 'close' } })
      wire.socket.end()
      t.equal(await serving, null)
      await wire.ended
      t.equal(wire.pending, 0, 'nothing more is answered')
    })
  }
  for (const [rule, name, bytes, outcome] of requestHeads) {
    await t.test(`${rule} ${name}`, async (t) => {
      const { wire, serving } = await dialServer(t, port, sockets)
      wire.send(bytes).socket.end()
      if (outcome.accepted) {
        const { statusCode } = await wire.response(outcome.method)
        t.equal(statusCode, outcome.method === 'CONNECT' ? 501 : 200)
      }
      t.equal(await serving, outcome.accepted ? null : outcome.code)
      await wire.ended
    })
  }
})

t.test('in both directions at once, cut off, and more than the buffers hold', async (t) => {
  const sockets = { next: (_serving: Promise<void>) => {} }
  const port = await listen((serving) => sockets.next(serving))
  const { wire, serving } = await dialServer(t, port, sockets)
  wire.send('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n')
  await wire.head()
  for (const word of ['there', 'and', 'back']) {
    wire.send(`${word.length}\r\n${word}\r\n`)
    t.equal(await wire.content(), word)
  }
  wire.socket.end()
  t.equal(await serving, 'FST_ERR_DUPLEX_TRUNCATED')
  await t.rejects(wire.body(), { code: 'FST_ERR_DUPLEX_TRUNCATED' })

  const big = await dialServer(t, port, sockets)
  const content = 'x'.repeat(4 * 1024 * 1024)
  big.wire.send(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${content.length}\r\n\r\n${content}`).socket.end()
  t.ok((await big.wire.response()).body === content)
  t.equal(await big.serving, null)
})

t.test('over a socket that a route has detached', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex)
  app.addHttpMethod('CONNECT')
  // eslint-disable-next-line no-new-func
  new Function('app', 'serve', route)(app, serve)
  await app.listen({ port: 0, host: '127.0.0.1' })
  const wire = await dial('tcp', { port: (app.server.address() as AddressInfo).port, host: '127.0.0.1' })
  // The first request comes with the CONNECT, and must not be lost.
  wire.send('CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst')
  t.equal((await wire.head('CONNECT')).statusCode, 200)
  t.match(await wire.response(), { statusCode: 200, body: 'first' })
  t.match(await wire.request('POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecond'), { body: 'second', fields: { connection: 'close' } })
  wire.socket.end()
  await wire.ended
})
