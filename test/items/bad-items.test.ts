// Bad and odd items: what a client gets for them before the first byte of the response, and after it.

import { once } from 'node:events'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import type { ItemDuplex } from '../../types/index.d.ts'
import type { CheckedItem } from '../../types/items.d.ts'
import { itemCodec, jsonSeq, jsonl } from '../../lib/items/index.ts'
import { collectGarbage } from '../support/garbage.ts'
import { accepted, chunk, resolvers, serve } from '../support/wire.ts'
import { JSONL, WAYS, linesOf, restOf, serveWay, until, utf8 } from './live.ts'

const ID = { type: 'object', properties: { id: { type: 'integer' }, name: { type: 'string' } }, required: ['id'], additionalProperties: true }

/** What becomes of one item: its value, or why it is bad. */
type Outcome = { value: unknown } | { code: string, offset: number, message: RegExp, validation?: object[] }

const good = (value: unknown): Outcome => ({ value })
const bad = (offset: number, message: RegExp, validation?: object[]): Outcome => ({ code: 'FST_ERR_DUPLEX_ITEM', offset, message, ...(validation && { validation }) })
const long = (offset: number): Outcome => ({ code: 'FST_ERR_DUPLEX_ITEM_LIMIT', offset, message: /exceeds 100 bytes/ })

interface Row { body: string | Buffer, items: Outcome[], route?: string }

const DEEP = '['.repeat(100_000)
const SEQ = '/seq'
const ANY = '/any'
const LIMIT = '/limit'
const TREE = '/tree'
const SCHEMAS: Record<string, object> = { '': ID, [SEQ]: ID, [ANY]: {}, [LIMIT]: {}, [TREE]: { $id: 'tree', type: 'array', items: { $ref: '#' } } }
const bytes = (...values: (string | number)[]): Buffer => Buffer.concat(values.map((value) => typeof value === 'string' ? Buffer.from(value) : Buffer.of(value)))
const of = (size: number): string => JSON.stringify('x'.repeat(size - 2))

const ROWS: Record<string, Row> = {
  'no item': { body: '', items: [] },
  'blank lines only': { body: '\n\r\n \t\n\n', items: [] },
  'a BOM only': { body: '\ufeff', items: [] },
  'half a BOM': { body: bytes(0xef, 0xbb), items: [bad(0, /not UTF-8/)] },
  'one good item': { body: '{"id":1}\n', items: [good({ id: 1 })] },
  'an unterminated last line': { body: '{"id":1}\n{"id":2}', items: [good({ id: 1 }), good({ id: 2 })] },
  'blank lines, CRLF': { body: '\n{"id":1}\r\n \r\n\r\n{"id":2}\r\n', items: [good({ id: 1 }), good({ id: 2 })] },
  'a BOM in front': { body: '\ufeff{"id":1}\n{"id":2}\n', items: [good({ id: 1 }), good({ id: 2 })] },
  'a BOM behind the start': { body: '{"id":1}\n\ufeff{"id":2}\n{"id":3}\n', items: [good({ id: 1 }), bad(9, /JSON/), good({ id: 3 })] },
  'spaces around an item': { body: ' \t{"id":1} \t\n', items: [good({ id: 1 })] },
  'U+2028 and U+2029 in a string': { body: '{"id":1,"name":"a\u2028b\u2029c"}\n{"id":2}\n', items: [good({ id: 1, name: 'a\u2028b\u2029c' }), good({ id: 2 })] },
  'U+2028 between items': { body: '{"id":1}\u2028{"id":2}\n{"id":3}\n', items: [bad(0, /JSON/), good({ id: 3 })] },
  'U+0085 behind an item': { body: '{"id":1}\u0085\n{"id":2}\n', items: [bad(0, /JSON/), good({ id: 2 })] },
  'no JSON': { body: '{"id":1}\nnonsense\n{"id":3}\n', items: [good({ id: 1 }), bad(9, /JSON/), good({ id: 3 })] },
  'half an object': { body: '{"id":1\n{"id":2}\n', items: [bad(0, /JSON/), good({ id: 2 })] },
  'half an object, unterminated': { body: '{"id":1}\n{"id":', items: [good({ id: 1 }), bad(9, /JSON/)] },
  'an object over two lines': { body: '{"id":\n1}\n', items: [bad(0, /JSON/), bad(7, /JSON/)] },
  'two items in one line': { body: '{"id":1}{"id":2}\n{"id":3}\n', items: [bad(0, /JSON/), good({ id: 3 })] },
  'a comma behind an item': { body: '{"id":1},\n{"id":2}\n', items: [bad(0, /JSON/), good({ id: 2 })] },
  'a comma within an item': { body: '{"id":1,}\n{"id":2}\n', items: [bad(0, /JSON/), good({ id: 2 })] },
  'a comment': { body: '// a comment\n{"id":2}\n', items: [bad(0, /JSON/), good({ id: 2 })] },
  'single quotes': { body: "{'id':1}\n{\"id\":2}\n", items: [bad(0, /JSON/), good({ id: 2 })] },
  NaN: { body: '{"id":NaN}\n{"id":2}\n', items: [bad(0, /JSON/), good({ id: 2 })] },
  'a leading zero': { body: '{"id":01}\n', items: [bad(0, /JSON/)] },
  'a bare CR': { body: '{"id":1}\r{"id":2}\n{"id":3}\n', items: [bad(0, /JSON/), good({ id: 3 })] },
  'a tab in a string': { body: '{"id":1,"name":"\t"}\n', items: [bad(0, /JSON/)] },
  'NUL between tokens': { body: '{"id":\0 1}\n{"id":2}\n', items: [bad(0, /JSON/), good({ id: 2 })] },
  'NUL in a string': { body: '{"id":1,"name":"\0"}\n{"id":2}\n', items: [bad(0, /JSON/), good({ id: 2 })] },
  'NUL as an escape': { body: '{"id":1,"name":"\\u0000"}\n', items: [good({ id: 1, name: '\0' })] },
  'a lone surrogate as an escape': { body: '{"id":1,"name":"\\ud800"}\n', items: [good({ id: 1, name: '\ud800' })] },
  'a lone surrogate in UTF-8': { body: bytes('{"id":1,"name":"', 0xed, 0xa0, 0x80, '"}\n{"id":2}\n'), items: [bad(0, /not UTF-8/), good({ id: 2 })] },
  'an overlong form': { body: bytes('{"id":1}\n{"id":2,"name":"', 0xc0, 0xaf, '"}\n{"id":3}\n'), items: [good({ id: 1 }), bad(9, /not UTF-8/), good({ id: 3 })] },
  'half a character': { body: bytes('{"id":1,"name":"', 0xe2, 0x82, '"}\n{"id":2}\n'), items: [bad(0, /not UTF-8/), good({ id: 2 })] },
  'half a character at the end': { body: bytes('{"id":1}\n{"id":2,"name":"', 0xf0, 0x9f), items: [good({ id: 1 }), bad(9, /not UTF-8/)] },
  'Latin-1': { body: bytes('{"id":1,"name":"', 0xe4, '"}\n'), items: [bad(0, /not UTF-8/)] },
  'UTF-16': { body: Buffer.from('{"id":1}\n', 'utf16le'), items: [bad(0, /JSON/), bad(17, /JSON/)] },
  'an offset behind characters of several bytes': { body: '{"id":1,"name":"äöü€😀"}\n{"id":"x"}\n', items: [good({ id: 1, name: 'äöü€😀' }), bad(32, /must be integer/)] },
  'against the schema': { body: '{"id":1}\n{"name":"x"}\n{"id":3}\n', items: [good({ id: 1 }), bad(9, /item must have required property 'id'/, [{ keyword: 'required', instancePath: '', params: { missingProperty: 'id' } }]), good({ id: 3 })] },
  'against the schema, deeper': { body: '{"id":1}\n{"id":{}}\n', items: [good({ id: 1 }), bad(9, /item\/id must be integer/, [{ keyword: 'type', instancePath: '/id' }])] },
  'no object': { body: '{"id":1}\n[1]\n7\nnull\n"x"\n', items: [good({ id: 1 }), bad(9, /must be object/), bad(13, /must be object/), bad(15, /must be object/), bad(20, /must be object/)] },
  'values that look false': { body: '0\nfalse\nnull\n""\n', route: ANY, items: [good(0), good(false), good(null), good('')] },
  'coerced, as in a body': { body: '{"id":"7"}\n', items: [good({ id: 7 })] },
  'duplicate keys': { body: '{"id":1,"id":2}\n', items: [good({ id: 2 })] },
  'the key __proto__': { body: '{"id":1}\n{"id":2,"__proto__":{"a":1}}\n{"id":3}\n', items: [good({ id: 1 }), bad(9, /__proto__/), good({ id: 3 })] },
  '__proto__ as an escape': { body: '{"id":2,"\\u005f_proto__":{"a":1}}\n', items: [bad(0, /__proto__/)] },
  '__proto__ as a value': { body: '{"id":2,"name":"__proto__"}\n', items: [good({ id: 2, name: '__proto__' })] },
  'constructor.prototype': { body: '{"id":2,"constructor":{"prototype":{"a":1}}}\n{"id":3}\n', items: [bad(0, /constructor/), good({ id: 3 })] },
  'constructor without prototype': { body: '{"id":2,"constructor":{"a":1}}\n', items: [good({ id: 2, constructor: { a: 1 } })] },
  'as long as allowed': { body: `${of(100)}\n${of(100)}\r\n${of(100)}`, route: LIMIT, items: [good('x'.repeat(98)), good('x'.repeat(98)), good('x'.repeat(98))] },
  'one byte too long': { body: `1\n${of(101)}\n2\n${of(101)}\r\n3\n`, route: LIMIT, items: [good(1), long(2), good(2), long(106), good(3)] },
  'one byte too long, unterminated': { body: `1\n${of(101)}`, route: LIMIT, items: [good(1), long(2)] },
  'much too long': { body: `1\n${of(10_000)}\n2\n`, route: LIMIT, items: [good(1), long(2), good(2)] },
  'too long in bytes, not in characters': { body: `1\n"${'€'.repeat(33)}"\n2\n`, route: LIMIT, items: [good(1), long(2), good(2)] },
  'blanks that are too long': { body: `1\n${' '.repeat(101)}\n2\n`, route: LIMIT, items: [good(1), long(2), good(2)] },
  'nested deeply': { body: `{"id":1}\n${DEEP}${DEEP.replaceAll('[', ']')}\n{"id":2}\n`, items: [good({ id: 1 }), bad(9, /must be object/), good({ id: 2 })] },
  'nested deeply, and never closed': { body: `{"id":1}\n${DEEP}\n{"id":2}\n`, items: [good({ id: 1 }), bad(9, /JSON/), good({ id: 2 })] },
  'nested deeper than the validator can go': { body: `[]\n${DEEP}${DEEP.replaceAll('[', ']')}\n[[]]\n`, route: TREE, items: [good([]), bad(3, /call stack/), good([[]])] },
  'a text sequence': { body: '\x1e{"id":1}\n\x1e{"id":2}\n', route: SEQ, items: [good({ id: 1 }), good({ id: 2 })] },
  'a text sequence with empty texts': { body: '\x1e\x1e\n\x1e \x1e{"id":1}\r\n', route: SEQ, items: [good({ id: 1 })] },
  'a text over several lines': { body: '\x1e{\n"id":\n1}\n', route: SEQ, items: [good({ id: 1 })] },
  'a text sequence without RS': { body: '{"id":1}\n\x1e{"id":2}\n', route: SEQ, items: [bad(0, /RS/), good({ id: 2 })] },
  'a text that is cut': { body: '\x1e{"id":1\x1e{"id":2}\n', route: SEQ, items: [bad(0, /JSON/), good({ id: 2 })] },
  'a number that may be cut': { body: '\x1e12\x1e12\n', route: SEQ, items: [bad(0, /may be cut/), bad(3, /must be object/)] },
  // With LF between them, the first one is an item if its LF is the end of a read.
  'two texts behind one RS': { body: '\x1e{"id":1}{"id":2}\n\x1e{"id":3}\n', route: SEQ, items: [bad(0, /JSON/), good({ id: 3 })] }
}

type AnyError = Error & { code?: string, statusCode?: number, index?: number, offset?: number, validation?: object[] }

function answer (error: AnyError): object {
  const { code, message, index, offset, validation } = error
  return { code, message, index, offset, validation }
}

/** Routes that collect all items before they answer, that answer each item, and that take bad items too. */
function addRoutes (app: FastifyInstance, routeOptions: object): void {
  app.setErrorHandler((error: AnyError, _request, reply) => { reply.code(error.statusCode ?? 500).send(answer(error)) })
  for (const [path, format, options] of [['', jsonl, {}], [ANY, jsonl, {}], [LIMIT, jsonl, { maxItemSize: 100 }], [SEQ, jsonSeq, {}], [TREE, jsonl, {}]] as const) {
    const schema = SCHEMAS[path]
    app.post(`/before${path}`, { ...routeOptions, duplex: { receive: format(schema, options) } }, async (_request, reply) => {
      const items: unknown[] = []
      for await (const item of reply.duplex.items) items.push(item)
      return items.map((value) => ({ value }))
    })
    app.post(`/after${path}`, { ...routeOptions, duplex: { receive: format(schema, options), send: jsonl({}) } }, async function * (_request: FastifyRequest, reply: FastifyReply) {
      const { duplex } = reply as unknown as { duplex: ItemDuplex<unknown, unknown> }
      duplex.flushHeaders()
      for await (const value of duplex.items) yield { value }
    })
    app.post(`/both${path}`, { ...routeOptions, duplex: { receive: format(schema, { ...options, invalid: 'item' }) } }, async (_request, reply) => {
      const items: unknown[] = []
      for await (const item of reply.duplex.items as unknown as AsyncIterable<CheckedItem<unknown>>) items.push(item.ok ? { value: item.value } : answer(item.error))
      return items
    })
    app.post(`/batches${path}`, { ...routeOptions, duplex: { receive: format(schema, options), send: jsonl({}) } }, async function * (_request: FastifyRequest, reply: FastifyReply) {
      const { duplex } = reply as unknown as { duplex: ItemDuplex<unknown, unknown> }
      duplex.flushHeaders()
      for await (const batch of duplex.items.batches()) yield * batch.map((value) => ({ value }))
    })
  }
  app.post('/next', { ...routeOptions, duplex: true }, async function * () { yield 'next' })
}

for (const way of WAYS) {
  t.test(`bad and odd items: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, addRoutes)
    for (const [name, { body, items, route = '' }] of Object.entries(ROWS)) {
      const whole = Buffer.from(body as string)
      const first = items.findIndex((item) => 'code' in item)
      const goods = first === -1 ? items : items.slice(0, first)
      const expected = items.map((item, index) => 'code' in item ? { ...item, index } : item)
      const cuts: Record<string, Buffer[]> = { whole: whole.length === 0 ? [] : [whole], 'cut at every byte': Array.from(whole, (byte) => Buffer.of(byte)) }
      if (whole.length > 1000) delete cuts['cut at every byte']
      for (const [how, chunks] of Object.entries(cuts)) {
        const fields = { 'content-type': route === SEQ ? 'application/json-seq' : 'application/jsonl' }
        const message = `${name}, ${how}`

        const before = await send(`/before${route}`, chunks, fields)
        const { code = null, ...error } = first === -1 ? {} : expected[first] as { code?: string }
        t.equal(before.status, code === null ? 200 : code.endsWith('LIMIT') ? 413 : 400, message)
        t.match(JSON.parse(before.body), code === null ? goods : { code, ...error }, message)
        t.equal(before.isCutOff, false, message)

        for (const path of ['after', 'batches']) {
          const after = await send(`/${path}${route}`, chunks, fields)
          const lines = linesOf(after.body)
          t.equal(after.status, 200)
          t.equal(after.fields['content-type'], 'application/jsonl')
          t.equal(JSON.stringify(lines.slice(0, goods.length)), JSON.stringify(goods), `${message}: the items before it, ${path}`)
          if (code === null) {
            t.equal(lines.length, goods.length)
            t.equal(after.isCutOff, false)
          } else {
            const { message: detail, index, offset } = expected[first] as any
            const status = code.endsWith('LIMIT') ? 413 : 400
            t.match(lines.slice(goods.length), [{ type: 'about:blank', title: status === 400 ? 'Bad Request' : /./, status, code, detail, index, offset }], `${message}: the problem record`)
            t.equal(lines.length, goods.length + 1)
            t.equal(after.isCutOff, true, `${message}: cut off`)
          }
        }

        const both = await send(`/both${route}`, chunks, fields)
        t.equal(both.status, 200)
        t.match(JSON.parse(both.body), expected, `${message}: bad ones as items`)
        t.equal(JSON.parse(both.body).length, expected.length)
      }
      t.equal((await send('/next', [])).body, 'next', `${name}: the next request`)
    }
  })
}

// Every cut in two, as writes of their own

for (const way of ['raw', 'asynchronous constraint']) {
  t.test(`items that come in two reads: ${way}`, async (t) => {
    const { app, connect } = await serveWay(t, way, addRoutes)
    const [wire, socket] = await accepted(app, connect)
    const body = Buffer.from('{"id":1,"name":"€"}\r\n{"id":"x"}\n').toString('latin1')
    for (let cut = 1; cut < body.length; cut++) {
      const before = socket.bytesRead
      const start = `POST /both HTTP/1.1\r\nHost: a\r\nContent-Type: application/jsonl\r\nTransfer-Encoding: chunked\r\n\r\n${chunk(body.slice(0, cut))}`
      wire.send(start)
      await until(() => socket.bytesRead - before === start.length)
      wire.send(`${chunk(body.slice(cut))}0\r\n\r\n`)
      const { statusCode, body: answer } = await wire.response()
      t.equal(statusCode, 200)
      t.match(JSON.parse(utf8(answer)), [{ value: { id: 1, name: '€' } }, { index: 1, offset: 23, message: /must be integer/ }], `cut at ${cut}`)
    }
  })
}

// Bodies that are not complete

const INCOMPLETE: Record<string, { head: string, body: string, closes: boolean }> = {
  'a body that is cut within an item': { head: 'Transfer-Encoding: chunked', body: chunk('{"id":1}\n{"id":'), closes: true },
  'a body that is cut within a number': { head: 'Transfer-Encoding: chunked', body: chunk('{"id":1}\n12'), closes: true },
  'a body that is cut behind an item': { head: 'Transfer-Encoding: chunked', body: chunk('{"id":1}\n{"id":2}'), closes: true },
  'a chunk that is cut': { head: 'Transfer-Encoding: chunked', body: `${chunk('{"id":1}\n')}ff\r\n{"id":2}`, closes: true },
  'fewer bytes than content-length says': { head: 'Content-Length: 50', body: '{"id":1}\n{"id":2}', closes: true },
  'a malformed chunk within an item': { head: 'Transfer-Encoding: chunked', body: `${chunk('{"id":1}\n{"id":')}nonsense\r\n`, closes: false }
}

const FAILURE = /^FST_ERR_DUPLEX_(TRUNCATED|CHUNK|ABORTED)$/

for (const way of ['raw', 'asynchronous constraint']) {
  for (const [name, { head, body, closes }] of Object.entries(INCOMPLETE)) {
    t.test(`${name} never looks like a short one: ${way}`, async (t) => {
      const seen: unknown[] = []
      const over = resolvers()
      const { connect } = await serveWay(t, way, (app, routeOptions) => {
        app.post('/', { ...routeOptions, duplex: { receive: jsonl({}), send: jsonl({}) } }, async function * (_request, reply) {
          const { duplex } = reply as unknown as { duplex: ItemDuplex<unknown, unknown> }
          duplex.flushHeaders()
          // A second loop must not take the failure for the end, either.
          for (const loop of ['first', 'second']) {
            try {
              for await (const item of duplex.items) seen.push(item)
              seen.push(`the end, in the ${loop} loop`)
            } catch (error) {
              seen.push((error as { code: string }).code)
            }
          }
          over.resolve()
          yield 'never'
        })
      })
      const wire = await connect()
      wire.send(`POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/jsonl\r\n${head}\r\n\r\n`)
      await wire.head()
      wire.send(body)
      if (closes) wire.socket.end()
      await over.promise
      // A failure may overtake what was read before it.
      t.match(seen.filter((item) => typeof item !== 'string'), seen.length === 3 ? [{ id: 1 }] : [])
      t.match(seen.slice(-2), [FAILURE, FAILURE])
      t.strictSame(await restOf(wire), { body: '', isCutOff: true })
      await wire.ended
    })
  }

  t.test(`more bytes than content-length says: ${way}`, async (t) => {
    const { connect } = await serveWay(t, way, addRoutes)
    const wire = await connect()
    wire.send('POST /before HTTP/1.1\r\nHost: a\r\nContent-Type: application/jsonl\r\nContent-Length: 12\r\n\r\n{"id":1}\n{"id":2}\n')
    const { statusCode, body } = await wire.response()
    t.equal(statusCode, 400)
    // Node may answer first, since what follows is no request.
    if (way === 'raw') t.match(JSON.parse(body), { code: 'FST_ERR_DUPLEX_ITEM', index: 1, offset: 9 })
    await wire.ended
  })
}

// The app's rules for keys

for (const rule of ['error', 'remove', 'ignore'] as const) {
  t.test(`keys that poison prototypes are treated as on an ordinary route: ${rule}`, async (t) => {
    const keys = (value: unknown): string => JSON.stringify(value, (_key, value) => Object.keys(value ?? {}).length > 0 && typeof value === 'object' ? Object.entries(value) : value)
    const { send } = await serveWay(t, 'raw', (app) => {
      app.post('/plain', async ({ body }) => keys(body))
      app.post('/', { duplex: { receive: jsonl({}) } }, async (_request, reply) => {
        const { value } = await reply.duplex.items[Symbol.asyncIterator]().next()
        return keys(value)
      })
    }, {}, { onProtoPoisoning: rule, onConstructorPoisoning: rule })
    for (const item of [
      '{"__proto__":{"a":1}}', '{"a":[{"__proto__":null}]}', '{"\\u005f\\u005fproto__":{"a":1},"b":2}', '{"__proto__" : 1, "__proto__":{}}',
      '{"constructor":{"prototype":{"a":1}}}', '{"constructor":{"a":1}}', '{"constructor":1}', '{"c\\u006fnstructor":{"prototype":1},"b":2}', '{"constructor":{"proto\\u0074ype":1},"b":2}',
      '{"toString":1,"hasOwnProperty":2}', '"__proto__"'
    ]) {
      const plain = await send('/plain', [Buffer.from(item)], { 'content-type': 'application/json' })
      const ours = await send('/', [Buffer.from(`${item}\n`)], JSONL)
      t.equal(ours.status, plain.status, item)
      if (plain.status === 200) t.equal(ours.body, plain.body, item)
    }
    t.equal(({} as { a?: unknown }).a, undefined)
  })
}

// Limits

t.test('a line of 256 MiB is dropped as it comes', async (t) => {
  const MIB = 1024 * 1024
  const LIMIT = 64 * 1024
  let held = 0
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { receive: jsonl({}, { maxItemSize: LIMIT, invalid: 'item' }) } }, async (_request, reply) => {
      const { items } = reply.duplex as unknown as { items: AsyncIterable<CheckedItem<unknown>> & { decoder: { heldBytes: number } } }
      reply.duplex.on('readable', () => { held = Math.max(held, items.decoder.heldBytes + reply.duplex.readableLength) })
      const seen: unknown[] = []
      for await (const item of items) seen.push(item.ok ? item.value : answer(item.error))
      return seen
    })
  })
  const wire = await connect()
  const before = process.memoryUsage().arrayBuffers
  let growth = 0
  const response = wire.response()
  wire.send(`POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/jsonl\r\nContent-Length: ${4 + 256 * MIB + 3}\r\n\r\n"a"\n`)
  const part = Buffer.alloc(MIB, 'x')
  for (let i = 0; i < 256; i++) {
    if (!wire.socket.write(part)) await once(wire.socket, 'drain')
    if (i % 32 !== 0) continue
    collectGarbage()
    growth = Math.max(growth, process.memoryUsage().arrayBuffers - before)
  }
  wire.send('\n1 ')
  const { statusCode, body } = await response
  t.equal(statusCode, 200)
  t.match(JSON.parse(body), ['a', { code: 'FST_ERR_DUPLEX_ITEM_LIMIT', index: 1, offset: 4 }, 1])
  t.ok(held < 8 * LIMIT, `${held} bytes held`)
  t.ok(growth < 16 * MIB, `${growth} bytes more`)
})

// Codecs of one's own: where the next item begins is unknown behind a bad one

const LENGTHS = itemCodec({
  mediaTypes: ['application/x-lengths'],
  decode (bytes) {
    if (bytes[0] === 0) throw new Error('a length of zero')
    return bytes.length < bytes[0] ? bytes[0] : { item: bytes.toString('latin1', 1, bytes[0]), size: bytes[0] }
  },
  encode: (item) => Buffer.from(`${String.fromCharCode(String(item).length + 1)}${String(item)}`, 'latin1')
})

for (const way of WAYS) {
  t.test(`a codec that cannot go on behind a bad item: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      for (const invalid of ['error', 'item'] as const) {
        app.post(`/${invalid}`, { ...routeOptions, duplex: { receive: LENGTHS({}, { invalid, maxItemSize: 100 }), send: jsonl({}) } }, async (_request, reply) => {
          const { duplex } = reply as unknown as { duplex: ItemDuplex<any, unknown> }
          duplex.flushHeaders()
          for await (const item of duplex.items) duplex.send(item.ok === false ? answer(item.error) : item.value ?? item)
          duplex.end()
        })
      }
    })
    const fields = { 'content-type': 'application/x-lengths' }
    for (const [what, body, error] of [
      ['a bad item', '\x03ab\x00\x03cd', { code: 'FST_ERR_DUPLEX_ITEM', index: 1, offset: 3 }],
      ['an item that is too long', '\x03ab\x65\x03cd', { code: 'FST_ERR_DUPLEX_ITEM_LIMIT', index: 1, offset: 3 }],
      ['an item that is cut', '\x03ab\x04c', { code: 'FST_ERR_DUPLEX_ITEM', index: 1, offset: 3 }]
    ] as const) {
      const chunks = Array.from(body, (byte) => Buffer.from(byte, 'latin1'))
      const error1 = await send('/error', chunks, fields)
      t.match(linesOf(error1.body), ['ab', { type: 'about:blank', ...error }], what)
      t.equal(error1.isCutOff, true)
      const item = await send('/item', chunks, fields)
      t.match(linesOf(item.body), ['ab', error, { type: 'about:blank', ...error }], `${what}, as an item: reading fails behind it`)
      t.equal(item.isCutOff, true)
    }
  })
}
