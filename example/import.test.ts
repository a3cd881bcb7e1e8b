import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { test } from 'node:test'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { type Row, bulkImport } from './import.ts'

test('a bulk import', async (t) => {
  const saved: Row[] = []
  const app = Fastify()
  t.after(() => app.close())
  await app.register(duplex)
  await app.register(bulkImport, { save: async (row: Row) => saved.push(row) })

  await t.test('answers each row before the next is sent, and sends the totals as trailers', async () => {
    const client = await app.injectDuplex({ method: 'POST', url: '/import' })
    const resultFor = async (text: string): Promise<unknown> => {
      client.write(text)
      return JSON.parse(String(await once(client, 'data')))
    }

    assert.deepEqual(await resultFor('{"name":"a","amount":1}\n'), { row: 1, ok: true })
    assert.deepEqual(await resultFor('{"name":""}\n'), { row: 2, ok: false, error: "must have required property 'amount'" })
    assert.match(JSON.stringify(await resultFor('{\n')), /"row":3,"ok":false/)
    assert.deepEqual(await resultFor('{"name":"' + 'b'.repeat(70_000) + '","amount":1}\n'), { row: 4, ok: false, error: 'too long' })
    client.end('\n{"name":"é","amount":2}')
    assert.deepEqual(JSON.parse(String(await once(client, 'data'))), { row: 5, ok: true })
    await once(client, 'end')
    assert.deepEqual({ ...client.trailers }, { 'x-imported': '2', 'x-refused': '3' })
    assert.deepEqual(saved, [{ name: 'a', amount: 1 }, { name: 'é', amount: 2 }])
  })

  await t.test('answers HTTP/1.0, which has no trailers', async () => {
    const client = await app.injectDuplex({ method: 'POST', url: '/import', httpVersion: '1.0', payload: '{"name":"a"}\n{"name":"b"}' })
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
    const client = await app.injectDuplex({ method: 'POST', url: '/import', payload: rows() })
    await saving
    for (let turn = 0; turn < 1000; turn++) await new Promise(setImmediate)
    assert.equal(saveCalls, 1)
    assert.ok(sent < 1024 * 1024, `${sent} bytes were read`)
    saves.emit('release')
    assert.deepEqual(JSON.parse(String(await once(client, 'data'))), { row: 1, ok: true })
    client.on('error', () => {})
    client.destroy()
    saves.emit('release')
  })
})
