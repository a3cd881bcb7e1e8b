import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { test } from 'node:test'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { type Row, bulkImport } from './import.ts'

const headers = { 'content-type': 'application/jsonl' }

test('a bulk import', async (t) => {
  const saved: Row[] = []
  const app = Fastify()
  t.after(() => app.close())
  await app.register(duplex)
  await app.register(bulkImport, {
    save: async (row: Row) => {
      if (row.name === 'taken') throw new Error('there is one of this name')
      saved.push(row)
    }
  })

  await t.test('answers each row before the next is sent, and sends the totals as trailers', async () => {
    const client = await app.injectDuplex({ method: 'POST', url: '/import', headers })
    const resultFor = async (text: string): Promise<unknown> => {
      client.write(text)
      return JSON.parse(String(await once(client, 'data')))
    }

    assert.deepEqual(await resultFor('{"name":"a","amount":1}\n'), { index: 0, ok: true })
    assert.deepEqual(await resultFor('{"name":""}\n'), { index: 1, ok: false, error: "Item 1, at byte 24: item must have required property 'amount'" })
    assert.match(JSON.stringify(await resultFor('{\n')), /"index":2,"ok":false,"error":"Item 2, at byte 36: /)
    assert.deepEqual(await resultFor('{"name":"' + 'b'.repeat(70_000) + '","amount":1}\n'), { index: 3, ok: false, error: 'Item 3, at byte 38, exceeds 65536 bytes' })
    assert.deepEqual(await resultFor('{"name":"taken","amount":1}\n'), { index: 4, ok: false, error: 'there is one of this name' })
    client.end('\n{"name":"é","amount":2}')
    assert.deepEqual(JSON.parse(String(await once(client, 'data'))), { index: 5, ok: true })
    await once(client, 'end')
    assert.deepEqual({ ...client.trailers }, { 'x-imported': '2', 'x-refused': '4' })
    assert.deepEqual(saved, [{ name: 'a', amount: 1 }, { name: 'é', amount: 2 }])
  })

  await t.test('answers HTTP/1.0, which has no trailers', async () => {
    const client = await app.injectDuplex({ method: 'POST', url: '/import', headers, httpVersion: '1.0', payload: '{"name":"a"}\n{"name":"b"}' })
    let results = ''
    for await (const chunk of client) results += chunk
    assert.equal(results.split('\n').length, 3)
  })

  await t.test('reads no more rows while a row is being saved', async () => {
    const saves = new EventEmitter()
    let saveCalls = 0
    const app = Fastify()
    t.after(() => app.close())
    await app.register(duplex)
    await app.register(bulkImport, {
      save: async () => {
        saveCalls++
        saves.emit('save')
        await once(saves, 'release')
      }
    })
    let sent = 0
    const rows = async function * (): AsyncGenerator<string> {
      const chunk = '{"name":"a","amount":1}\n'.repeat(1000)
      for (;; sent += chunk.length) yield chunk
    }
    const saving = once(saves, 'save')
    const client = await app.injectDuplex({ method: 'POST', url: '/import', headers, payload: rows() })
    await saving
    for (let turn = 0; turn < 1000; turn++) await new Promise(setImmediate)
    assert.equal(saveCalls, 1)
    assert.ok(sent < 1024 * 1024, `${sent} bytes were read`)
    saves.emit('release')
    assert.deepEqual(JSON.parse(String(await once(client, 'data'))), { index: 0, ok: true })
    client.on('error', () => {})
    client.destroy()
    saves.emit('release')
  })
})
