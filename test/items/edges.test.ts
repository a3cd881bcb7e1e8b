// The edges of routes with items: what follows a failure, many bad items, several readers, and declarations that do not fit.

import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import type { ItemDuplex } from '../../types/index.d.ts'
import { itemCodec, jsonSeq, jsonl, sse } from '../../lib/items/index.ts'
import { GET, resolvers, serve } from '../support/wire.ts'
import { JSONL, WAYS, linesOf, serveWay } from './live.ts'

type Duplex = ItemDuplex<any, any>
const duplexOf = (reply: FastifyReply): Duplex => reply.duplex as unknown as Duplex
const bytes = (text: string): Buffer[] => [Buffer.from(text)]

function add (app: FastifyInstance, url: string, duplex: object, handler: (duplex: Duplex, request: FastifyRequest) => unknown, options: object = {}): void {
  app.post(url, { ...options, duplex } as any, ((request: FastifyRequest, reply: FastifyReply) => handler(duplexOf(reply), request)) as any)
}

for (const way of WAYS) {
  t.test(`nothing follows the last item of a response that fails: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      add(app, '/', { receive: jsonl({}), send: jsonl({}) }, async (duplex) => {
        duplex.send('first')
        await immediate()
        try {
          for await (const item of duplex.items) t.fail(String(item))
        } finally {
          // The handler has failed by then, and its last item was not sent yet.
          process.nextTick(() => {
            t.equal(duplex.send('behind'), false)
            duplex.write('"behind"\n', (error) => { t.ok(error) })
            duplex.end('"behind"\n', () => {})
          })
        }
      }, routeOptions)
    })
    const { body, isCutOff } = await send('/', bytes('nonsense\n'), JSONL)
    t.ok(isCutOff)
    t.match(linesOf(body), ['first', { code: 'FST_ERR_DUPLEX_ITEM' }])
    t.equal(linesOf(body).length, 2)
  })
}

t.test('a problem function with a promise', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    for (const [url, problem] of Object.entries({ '/resolves': async () => 'item', '/rejects': async () => { throw new Error('of the function') } } as Record<string, () => Promise<string>>)) {
      add(app, url, { receive: jsonl({}), send: jsonl({}, { problem }) }, async (duplex) => {
        duplex.send('first')
        await immediate()
        for await (const item of duplex.items) t.fail(String(item))
      })
    }
  })
  for (const url of ['/resolves', '/rejects']) t.match(await send(url, bytes('nonsense\n'), JSONL), { body: '"first"\n', isCutOff: true }, url)
})

t.test('an error handler answers in items, whatever was wrong with the request', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    app.setErrorHandler(async (error: any, _request, reply) => { duplexOf(reply.code(error.statusCode)).send({ code: error.code }); reply.duplex.end() })
    add(app, '/', { receive: jsonl({}), send: jsonl({}) }, async (duplex) => { for await (const item of duplex.items) t.fail(String(item)) })
  })
  t.match(await send('/', bytes('nonsense'), JSONL), { status: 400, body: '{"code":"FST_ERR_DUPLEX_ITEM"}\n' })
  t.match(await send('/', bytes('1'), { 'content-type': 'text/plain' }), { status: 415, body: '{"code":"FST_ERR_DUPLEX_MEDIA_TYPE"}\n' })
  // There is no format for it: the error of that is answered by the next handler, which is Fastify's.
  t.match(await send('/', bytes('1'), { ...JSONL, accept: 'text/plain' }), { status: 406, body: /FST_ERR_DUPLEX_NOT_ACCEPTABLE/ })
})

t.test('Accept fields with a charset, and without a value', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    add(app, '/', { send: [jsonSeq({}), jsonl({})] }, (duplex) => { duplex.send(1); duplex.end() })
  })
  for (const accept of ['application/jsonl; charset=utf-8', 'application/jsonl;charset="UTF-8";q=0.5']) {
    t.match(await send('/', [], { accept }), { status: 200, fields: { 'content-type': 'application/jsonl' } }, accept)
  }
  t.match(await send('/', [], { accept: '' }), { status: 200, fields: { 'content-type': 'application/json-seq' } })
  t.match(await send('/', [], { accept: 'application/jsonl; charset=latin1' }), { status: 406 })
})

t.test('heartbeats do not take the place of items within a content-length', async (t) => {
  const beats = resolvers()
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: { send: jsonl({}, { heartbeat: 1 }) } }, async (_request, reply) => {
      reply.header('content-length', 6)
      const duplex = duplexOf(reply)
      duplex.send(1)
      setTimeout(beats.resolve, 20) // 20 heartbeats
      await beats.promise
      duplex.send(222)
      duplex.end()
    })
  })
  t.match(await (await connect()).request(GET('/')), { body: '1\n222\n' })
})

t.test('many bad items: other code runs, and batches are bounded', async (t) => {
  let turns = 0
  let isReading = true
  const count = (): void => {
    turns++
    if (isReading) setImmediate(count)
  }
  const { send } = await serveWay(t, 'raw', (app) => {
    add(app, '/', { receive: jsonl({}, { invalid: 'item' }), send: jsonl({}) }, async (duplex) => {
      let items = 0
      count()
      for await (const { ok, error } of duplex.items) {
        items++
        if (ok || error.stack?.includes('\n    at ') === true) t.fail('a bad item, without a stack')
      }
      isReading = false
      duplex.send(items)
      duplex.end()
    })
    add(app, '/batches', { receive: jsonl({}, { invalid: 'item' }), send: jsonl({}) }, async (duplex) => {
      const sizes: number[] = []
      for await (const batch of duplex.items.batches()) sizes.push(batch.length)
      duplex.send([Math.max(...sizes), sizes.reduce((sum, size) => sum + size)])
      duplex.end()
    })
  })
  const limit = Error.stackTraceLimit
  t.match(await send('/', bytes('x\n'.repeat(20_000)), JSONL), { body: '20000\n' })
  t.ok(turns >= 19, `${turns} turns`)
  t.match(await send('/batches', bytes('x\n'.repeat(20_000)), JSONL), { body: '[1024,20000]\n' })
  t.equal(Error.stackTraceLimit, limit)
})

t.test('several calls of batches() with an asynchronous validator come in turn', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    add(app, '/', { receive: jsonl({}), send: jsonl({}) }, async (duplex) => {
      const batches = duplex.items.batches()[Symbol.asyncIterator]()
      const read = await Promise.all([batches.next(), batches.next(), batches.next()])
      for (const { value } of read) if (value !== undefined) for (const item of value) duplex.send(item)
      duplex.end()
    }, { validatorCompiler: () => async (value: unknown) => { await immediate(); return { value } } })
  })
  t.strictSame(linesOf((await send('/', bytes('1\n2\n3\n4\n5\n6\n'), JSONL)).body), [1, 2, 3, 4, 5, 6])
})

t.test('a validator that rejects with something else than an error', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    // eslint-disable-next-line prefer-promise-reject-errors
    add(app, '/', { receive: jsonl({}), send: jsonl({}) }, async (duplex) => { for await (const item of duplex.items) t.fail(String(item)) }, { validatorCompiler: () => () => Promise.reject('no') })
  })
  t.match(await send('/', bytes('1\n'), JSONL), { status: 400, body: /Item 0, at byte 0: no/ })
})

t.test('the limit of a codec of one\'s own is exact at the end of the body', async (t) => {
  const lines = itemCodec({
    mediaTypes: ['text/x-lines'],
    decode (bytes, isLast) {
      const end = bytes.indexOf(10)
      if (end === -1) return isLast ? { item: String(bytes), size: bytes.length } : null
      return { item: String(bytes.subarray(0, end)), size: end + 1 }
    }
  })
  const { send } = await serveWay(t, 'raw', (app) => {
    add(app, '/', { receive: lines({}, { maxItemSize: 8 }), send: jsonl({}) }, async (duplex) => {
      for await (const item of duplex.items) duplex.send(item)
      duplex.end()
    })
  })
  t.match(await send('/', [Buffer.from('1234'), Buffer.from('5678')], { 'content-type': 'text/x-lines' }), { body: '"12345678"\n' })
  t.match(await send('/', [Buffer.from('1234'), Buffer.from('56789')], { 'content-type': 'text/x-lines' }), { status: 413 })
})

t.test('whitespace of a JSON text sequence that comes byte by byte', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    add(app, '/', { receive: jsonSeq({}), send: jsonl({}) }, async (duplex) => {
      for await (const item of duplex.items) duplex.send(item)
      duplex.end()
    })
  })
  const body = '\x1e \n \n\n1\n \n\x1e\n\n2\n'
  t.match(await send('/', [...body].map((byte) => Buffer.from(byte)), { 'content-type': 'application/json-seq' }), { body: '1\n2\n' })
})

t.test('items are collected although the stream is full', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    add(app, '/', { send: jsonl({}), highWaterMark: 10 }, (duplex) => {
      for (let i = 0; i < 3; i++) t.equal(duplex.send('more than ten'), false)
      duplex.end()
    })
  })
  t.strictSame(linesOf((await send('/', [])).body), ['more than ten', 'more than ten', 'more than ten'])
})

t.test('a codec of one\'s own may encode text', async (t) => {
  const csv = itemCodec({ mediaTypes: ['text/csv'], encode: (row) => `${(row as string[]).join(',')}\r\n`, heartbeat: '' })
  const { send } = await serveWay(t, 'raw', (app) => {
    add(app, '/', { send: csv({}) }, async function * () {
      yield ['a', 'b']
      yield ['é', 'c']
      await immediate()
      yield ['d']
    })
  })
  t.match(await send('/', []), { body: 'a,b\r\né,c\r\nd\r\n', fields: { 'content-type': 'text/csv' } })
})

for (const way of WAYS) {
  t.test(`the answer of an error handler has no fields of items: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      const options = { ...routeOptions, errorHandler: (error: Error, _request: FastifyRequest, reply: FastifyReply) => { reply.code(500).send(`failed: ${error.message}`) } }
      add(app, '/taken-back', { send: sse({}) }, async (duplex) => {
        duplex.send(1)
        throw new Error('no')
      }, options)
      app.post('/refused', { ...options, duplex: { send: sse({}) } } as any, (async (_request: FastifyRequest, reply: FastifyReply) => {
        reply.header('x-bad', 'a\nb')
        duplexOf(reply).send(1)
      }) as any)
      app.post('/own', { ...options, duplex: { send: sse({}) } } as any, (async (_request: FastifyRequest, reply: FastifyReply) => {
        reply.header('cache-control', 'no-cache')
        duplexOf(reply).send(1)
        throw new Error('no')
      }) as any)
    })
    for (const [path, cacheControl] of [['/taken-back', undefined], ['/refused', undefined], ['/own', 'no-cache']] as const) {
      const { status, fields, body } = await send(path, [])
      t.match({ status, body }, { status: 500, body: /^failed: / }, path)
      t.match(fields['content-type'], /^text\/plain/, path)
      t.equal(fields['cache-control'], cacheControl, path)
    }
  })
}

/** Iterators that a user may have written by hand, and what is sent before they fail. */
const BROKEN: Record<string, () => AsyncIterator<unknown>> = {
  'no object': () => ({ next: async () => undefined as never }),
  'no promise': () => ({ next: () => undefined as never }),
  'a value that throws': () => ({ next: async () => ({ get value (): unknown { throw new Error('no value') } }) as never }),
  'next() throws': () => ({ next () { throw new Error('no next') } })
}

for (const way of WAYS) {
  t.test(`a broken iterator is an error of its handler: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      for (const [i, iterator] of Object.values(BROKEN).entries()) {
        for (const duplex of [true, { send: jsonl({}) }]) {
          add(app, `/${i}/${duplex === true ? 'bytes' : 'items'}`, duplex as object, async () => ({ [Symbol.asyncIterator]: iterator }), routeOptions)
        }
      }
    })
    for (const i of Object.keys(BROKEN).keys()) {
      for (const what of ['bytes', 'items']) t.match(await send(`/${i}/${what}`, []), { status: 500 }, `${Object.keys(BROKEN)[i]}, ${what}`)
    }
  })

  t.test(`the last item of a response: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      add(app, '/corked', { send: jsonl({}, { problem: () => 'failed' }) }, async (duplex) => {
        duplex.send(1)
        await immediate()
        duplex.cork()
        duplex.send(2)
        throw new Error('no')
      }, routeOptions)
      // The last item would fill the rest.
      app.post('/length', { ...routeOptions, duplex: { send: jsonl({}, { problem: () => 'failed' }) } } as any, (async (_request: FastifyRequest, reply: FastifyReply) => {
        reply.header('content-length', '1\n"failed"\n'.length)
        duplexOf(reply).send(1)
        await immediate()
        throw new Error('no')
      }) as any)
      add(app, '/false', { send: jsonl({}, { problem: () => false }) }, async (duplex) => {
        duplex.send(1)
        await immediate()
        throw new Error('no')
      }, routeOptions)
    })
    t.match(await send('/corked', []), { body: '1\n2\n"failed"\n', isCutOff: true })
    t.match(await send('/length', []), { isCutOff: true })
    t.match(await send('/false', []), { body: /^(1\n)?$/, isCutOff: true })
  })
}

t.test('a client that does not read its last item: the error is that of the handler, and soon', async (t) => {
  const failed = resolvers<Error>()
  const { app } = await serve(t, 'tcp', (app) => {
    app.addHook('onError', async (_request, _reply, error) => { failed.resolve(error) })
    app.post('/', { duplex: { send: jsonl({}, { problem: () => 'failed' }), idleTimeout: 0, drainTimeout: 20 } as any }, (async (request: FastifyRequest, reply: FastifyReply) => {
      const duplex = duplexOf(reply)
      for (let i = 0; i < 3; i++) {
        while (duplex.send('x'.repeat(1000)));
        await immediate()
      }
      request.signal.addEventListener('abort', () => { aborted = request.signal.reason })
      throw new Error('a bug')
    }) as any)
  })
  let aborted: unknown
  const client = await app.injectDuplex({ method: 'POST', url: '/', payload: '' })
  t.match(await failed.promise, { message: 'a bug' })
  t.match(aborted, { message: 'a bug' })
  client.destroy()
})

t.test('what a codec makes of an item is bytes or text', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    for (const [i, content] of [undefined, 1, Promise.resolve('late'), new ArrayBuffer(2)].entries()) {
      add(app, `/${i}`, { send: itemCodec({ mediaTypes: ['a/b'], encode: () => content as never })({}) }, async (duplex) => { duplex.send(1) })
    }
    add(app, '/empty', { send: jsonl({}) }, async (duplex) => { duplex.send(1) }, { serializerCompiler: () => () => '' })
  })
  for (const path of ['/0', '/1', '/2', '/3', '/empty']) t.match(await send(path, []), { status: 500, body: /FST_ERR_DUPLEX_ITEM_SERIALIZE/ }, path)
})

t.test('items are UTF-8, whatever encoding the handler has set', async (t) => {
  const { send } = await serveWay(t, 'raw', (app) => {
    for (const encoding of ['latin1', 'utf16le', 'hex'] as const) {
      add(app, `/${encoding}`, { send: jsonl({}, { problem: () => 'ü' }) }, async (duplex) => {
        duplex.setDefaultEncoding(encoding)
        duplex.send('é')
        await immediate()
        throw new Error('no')
      })
    }
  })
  for (const encoding of ['latin1', 'utf16le', 'hex']) t.match(await send(`/${encoding}`, []), { body: '"é"\n"ü"\n', isCutOff: true }, encoding)
})

t.test('bad items have no stack, but errors of the app have one', async (t) => {
  const stacks: unknown[] = []
  const { send } = await serveWay(t, 'raw', (app) => {
    app.setErrorHandler((error: Error, _request, reply) => {
      stacks.push(error.stack)
      reply.code(500).send('failed')
    })
    const read = async (duplex: Duplex): Promise<unknown> => {
      const errors: string[] = []
      for await (const item of duplex.items) errors.push(item.ok ? 'ok' : item.error.message)
      return errors
    }
    add(app, '/bug', { receive: jsonl({}, { invalid: 'item' }) }, read, { validatorCompiler: () => () => { throw new TypeError('a bug') } })
    add(app, '/bad', { receive: jsonl({ type: 'number' }, { invalid: 'item' }) }, read)
  })
  t.match(await send('/bug', bytes('1\n'), JSONL), { status: 500 })
  t.match(stacks, [/a bug[^]*at /])
  const bad = '["Item 0, at byte 0: item must be number","ok"]'
  t.match(await send('/bad', bytes('"x"\n1\n'), JSONL), { body: bad })
  const { stackTraceLimit } = Error
  Object.defineProperty(Error, 'stackTraceLimit', { writable: false })
  try {
    t.match(await send('/bad', bytes('"x"\n1\n'), JSONL), { body: bad }, 'a frozen limit')
  } finally {
    Object.defineProperty(Error, 'stackTraceLimit', { writable: true, value: stackTraceLimit })
  }
})
