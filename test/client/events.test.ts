// The reader of server-sent events, beside eventsource-parser.

import { createParser } from 'eventsource-parser'
import t from 'tap'
import { NO_ITEM } from '../../lib/items/codec.ts'
import { EventDecoder, serverSentEvents } from '../../lib/items/sse.ts'
import { Random } from '../support/random.ts'

interface Options { maxItemSize?: number, parse?: ((text: string) => unknown) | null }

/** All items of a body, and the errors in their places. */
function read (chunks: Buffer[], { maxItemSize = 1000, parse = (text) => text }: Options = {}): unknown[] {
  const decoder = new EventDecoder({ maxItemSize, parse })
  const items: unknown[] = []
  const take = (): void => {
    for (;;) {
      try {
        const item = decoder.next()
        if (item === NO_ITEM) return
        items.push([decoder.index, decoder.offset, item])
      } catch (error) {
        const { code, message } = error as { code: string, message: string }
        items.push([decoder.index, decoder.offset, code, message])
      }
    }
  }
  take()
  for (const chunk of chunks) {
    decoder.write(chunk)
    take()
  }
  decoder.end()
  take()
  return items
}

function expected (body: string): string[] {
  const events: string[] = []
  const parser = createParser({ onEvent: ({ data }) => { events.push(data) } })
  parser.feed(body)
  return events
}

/** The body whole, byte by byte, and in two parts, cut at every byte. */
function cuts (body: Buffer): Buffer[][] {
  const inTwo = Array.from({ length: body.length + 1 }, (_, i) => [body.subarray(0, i), body.subarray(i)])
  return [[body], [...body].map((byte) => Buffer.from([byte])), ...inTwo]
}

t.test('random streams, cut anywhere', async (t) => {
  const TOKENS = ['data: a', 'data:b', 'data', 'data:  c', 'event: x', 'id: 1', ': comment', ':', 'retry: 1', 'other', 'data: é\u2028', '\n', '\r\n', '\n\n', '\n\n', '\r\n\r\n']
  const random = new Random(20)
  for (let run = 0; run < 500; run++) {
    const body = Array.from({ length: 12 }, () => random.pick(TOKENS)).join('')
    const bytes = Buffer.from(body)
    const whole = read([bytes])
    const data = whole.map((item) => (item as unknown[])[2])
    if (JSON.stringify(data) !== JSON.stringify(expected(body))) t.strictSame(data, expected(body), JSON.stringify(body))
    for (const chunks of cuts(bytes)) {
      const cut = read(chunks)
      if (JSON.stringify(cut) !== JSON.stringify(whole)) t.strictSame(cut, whole, JSON.stringify(chunks.map(String)))
    }
  }
  t.pass('500 streams')
})

t.test('whole streams', async (t) => {
  const parse = null
  t.strictSame(read([Buffer.from('\ufeffdata: {"a":\ndata: 1}\n\n:\n\n\ndata: 2\r\n\r\ndata: cut off')], { parse }), [[0, 0, { a: 1 }], [1, 29, 2]])
  for (const json of ['{"a":1}', '{\n"a":\r\n1}', '"é\u2028\\n"']) t.strictSame(read([Buffer.from(serverSentEvents.frame!([json]))], { parse }), [[0, 0, JSON.parse(json)]])
  const refusing = (text: string): unknown => { throw new Error(`not ${text}`) }
  t.strictSame(read([Buffer.from('data: 1\n\n')], { parse: refusing }), [[0, 0, 'FST_ERR_DUPLEX_ITEM', 'Item 0, at byte 0: not 1']])
})

t.test('bad and long events', async (t) => {
  const body = Buffer.from('data: 1\n\ndata: no\n\ndata: 23456\ndata: 7\n\ndata: 8901\n\ndata\n\ndata: 9\n\n')
  for (const chunks of cuts(body)) {
    t.match(read(chunks, { parse: null, maxItemSize: 10 }), [
      [0, 0, 1],
      [1, 9, 'FST_ERR_DUPLEX_ITEM', /^Item 1, at byte 9: /],
      [2, 19, 'FST_ERR_DUPLEX_ITEM_LIMIT', 'Item 2, at byte 19, exceeds 10 bytes'],
      [3, 40, 8901],
      [4, 52, 'FST_ERR_DUPLEX_ITEM', /./],
      [5, 58, 9]
    ])
  }
})
