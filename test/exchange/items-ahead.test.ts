// Items are decoded ahead of the one that is asked for: neither their errors nor those who leave in between may notice.

import { once } from 'node:events'
import type { FastifyInstance, RouteHandlerMethod } from 'fastify'
import t from 'tap'
import { jsonl } from '../../lib/items/index.ts'
import { TRANSPORTS, serve } from '../support/wire.ts'

const Row = { type: 'object', properties: { id: { type: 'integer' } }, required: ['id'] }
const COUNT = 300

/** Rows in one chunk; `bad` are no rows. */
function post (path: string, bad: number[] = []): string {
  const lines = Array.from({ length: COUNT }, (_, id) => bad.includes(id) ? `{"di":${id}}\n` : `{"id":${id}}\n`).join('')
  return `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/jsonl\r\nContent-Length: ${lines.length}\r\n\r\n${lines}`
}

const NUMBERS = Array.from({ length: COUNT }, (_, id) => id)

function route (app: FastifyInstance, path: string, handler: (items: AsyncIterableIterator<any> & { batches: () => AsyncIterator<any[]> }) => AsyncIterable<unknown>, options: object = {}): void {
  app.post(path, { duplex: { receive: jsonl(Row), send: jsonl({}) }, ...options } as {}, (async function * (_request, reply) {
    yield * handler((reply.duplex as any).items)
  }) as RouteHandlerMethod)
}

/** Takes each item, or the number of the one that is bad. */
async function * each (items: AsyncIterableIterator<any>): AsyncGenerator<unknown> {
  for (;;) {
    let result
    try {
      result = await items.next()
    } catch (error) {
      if ((error as { index?: number }).index === undefined) throw error
      yield { bad: (error as { index: number }).index }
      continue
    }
    if (result.done) return
    yield result.value.id
  }
}

for (const transport of TRANSPORTS) {
  t.test(`${transport}: items decoded ahead`, async (t) => {
    const { connect } = await serve(t, transport, (app) => {
      route(app, '/each', each)
      route(app, '/promised', each, {
        validatorCompiler: () => async (row: { id?: number }) => {
          if (row.id === undefined) throw new Error('no row')
          return { value: row }
        }
      })
      route(app, '/in-parts', async function * (items) {
        for await (const { id } of items) {
          yield id
          if (id === 9) break
        }
        const { value: batch } = await items.batches().next()
        yield batch.map(({ id }: { id: number }) => id)
        for await (const { id } of items) yield id
      })
    })
    const wire = await connect()
    const answer = async (request: string): Promise<unknown[]> => (await wire.request(request)).body.trimEnd().split('\n').map((line) => JSON.parse(line))
    const bad = [0, 5, 63, 64, 65, 200, COUNT - 1]
    const expected = NUMBERS.map((id) => bad.includes(id) ? { bad: id } : id)

    t.strictSame(await answer(post('/each')), NUMBERS)
    t.strictSame(await answer(post('/each', bad)), expected, 'errors come in their turn')
    t.strictSame(await answer(post('/promised', bad)), expected, 'also those of an asynchronous validator')
    t.strictSame((await answer(post('/in-parts'))).flat(), NUMBERS, 'each way to read goes on where the last one has left')
  })
}

t.test('a promise of a bad item that nobody has asked for is no unhandled rejection', async (t) => {
  const unhandled: unknown[] = []
  const listener = (reason: unknown): void => { unhandled.push(reason) }
  process.on('unhandledRejection', listener)
  t.teardown(() => process.off('unhandledRejection', listener))
  const { connect } = await serve(t, 'tcp', (app) => {
    let calls = 0
    app.post('/', {
      duplex: { receive: jsonl(Row), send: jsonl({}) },
      // Only the second item is checked asynchronously, and so decoded together with the first.
      validatorCompiler: () => () => calls++ === 0 ? true : Promise.reject(new Error('bad'))
    } as {}, (async (_request, reply) => {
      const duplex = reply.duplex as any
      await duplex.items.next()
      await new Promise(setImmediate)
      const second = await duplex.items.next().catch(({ index }: { index: number }) => index)
      duplex.send(second)
      duplex.end()
    }) as RouteHandlerMethod)
  })
  t.equal((await (await connect()).request(post('/'))).body, '1\n')
  t.strictSame(unhandled, [])
})

t.test('items that are sent although the stream is full', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { receive: jsonl(Row), send: jsonl({}), highWaterMark: 64 } } as {}, (async (_request, reply) => {
      const duplex = reply.duplex as any
      for (let round = 0; round < 3; round++) {
        const room = NUMBERS.map((id) => duplex.send(id))
        t.ok(room[0], 'there is room at first')
        t.equal(room.lastIndexOf(true) + 1, room.indexOf(false), 'and none behind the high water mark')
        await once(duplex, 'drain')
      }
      duplex.end()
    }) as RouteHandlerMethod)
  })
  const { body } = await (await connect()).request(post('/'))
  t.equal(body, NUMBERS.map((id) => `${id}\n`).join('').repeat(3))
})
